"""Tables from files: CSV, TSV, Parquet and ARFF, with errors that name the file.

Text files are read as text, so that nothing is guessed here: the training rows alone decide later
what a column holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.data.tables.file_format import FileFormat, NotATable
from src.data.tables.text_files import read_text_file
from src.data.tables.typed_files import read_arff, read_parquet
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: str | Path, layout: FileFormat | None = None) -> pd.DataFrame:
    """Reads a table; its texts have no spaces around them.

    ``attrs['notes']`` of the result says which columns were left out or taken apart.

    Args:
        path: The file, compressed or not.
        layout: How it is laid out.

    Raises:
        UserError: The file is missing, empty, of another kind, or not a table with unique column
            names.
    """
    layout = layout or FileFormat()
    if "://" in str(path):
        raise UserError(f"{path}: is an address, not a file; fetch it first")
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    kind = layout.kind(path)
    frame = read_as(kind, path, layout)

    # settings name columns, so that each name must mean one
    counts = Counter(str(name) for name in frame.columns)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise UserError(
            f"{path}: the column name '{twice[0]}' stands there more than once; "
            "column names must be unique, and a file without a header needs "
            "--data.names '[first, second, ...]'"
        )
    if frame.empty:
        raise UserError(f"{path}: there are column names, but no rows")
    if kind in ("parquet", "arff") and layout.missing:
        mask_missing(frame, layout.words_for_missing)
    return frame


def number_row(frame: pd.DataFrame, place: int) -> int:
    """Returns the number that a row has in its file, counted from 1.

    Args:
        frame: Rows of a file; their index counts the rows of the file, and may have gaps where some
            were left out.
        place: The place of the row among them, from 0.
    """
    return int(frame.index[place]) + 1


def read_as(kind: str, path: Path, layout: FileFormat) -> pd.DataFrame:
    """Reads a file of a known format.

    Raises:
        UserError: It cannot be read.
    """
    import pandas as pd  # half a second to import: only where it is used

    try:
        if kind == "parquet":
            return read_parquet(path)
        if kind == "arff":
            return read_arff(path)
        separator = layout.separator or ("\t" if kind == "tsv" else ",")
        return read_text_file(path, layout, separator)
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the file is empty") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is no text in UTF-8 ({error.reason}): save it in that encoding"
        ) from None
    except NotATable as error:
        raise UserError(f"{path}: {error}") from None
    except UserError:
        raise
    except (ValueError, OSError, EOFError, NotImplementedError) as error:
        # of pandas' parser, of pyarrow, of scipy
        reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise UserError(f"{path}: cannot be read as a table: {reason}") from None


def mask_missing(frame: pd.DataFrame, words: Sequence[str]) -> None:
    """Masks the words and numbers of a typed file that mean that a value is missing, in place."""
    import pandas as pd

    numbers = [float(word) for word in words if re.fullmatch(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", word)]
    for name in frame.columns:
        if pd.api.types.is_numeric_dtype(frame[name]):
            frame[name] = frame[name].mask(frame[name].isin(numbers))
        elif frame[name].dtype == "str":
            frame[name] = frame[name].mask(frame[name].isin(words))
