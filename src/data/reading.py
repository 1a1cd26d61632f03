"""Tables from files: CSV, TSV and Parquet, with mistakes named by file, column and row."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MISSING_WORDS = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the nearest ones, or all if none is near."""
    known = [str(k) for k in known]
    lowered = {k.lower(): k for k in known}
    near = [lowered[k] for k in difflib.get_close_matches(name.lower(), lowered, n=3)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"


def read_table(path: str | Path, delimiter: str | None = None, missing: Sequence[str] = MISSING_WORDS) -> pd.DataFrame:
    """Reads a table; the ending of its name, compressed or not, says which kind it is.

    Args:
        path: A .csv, .tsv or .parquet file.
        delimiter: Between the columns of a text file; None: a comma, or a tab in .tsv files.
        missing: Words that mean that a value is missing.

    Raises:
        ValueError: The file is missing, empty, of another kind, or not a table with unique column names.
    """
    import pandas as pd  # half a second to import: only where it is used

    if "://" in str(path):
        raise ValueError(f"{path}: is an address, not a file; fetch it first")
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file in it")
    delimiter = "\t" if delimiter == "\\t" else delimiter  # as one types it in a shell
    if delimiter is not None and len(delimiter) != 1:
        raise ValueError(f"data.delimiter is '{delimiter}'; it must be one character")
    kind = next((s for s in reversed(path.suffixes) if s in (".csv", ".tsv", ".txt", ".parquet")), None)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    if kind is None:
        raise ValueError(f"{path}: unknown kind of file; a table's name ends in .csv, .tsv or .parquet")
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(path)
            names = [str(c) for c in frame.columns]
        else:
            separator = delimiter or ("\t" if kind == ".tsv" else ",")
            settings = {"sep": separator, "skipinitialspace": True, "na_values": list(missing), "keep_default_na": False}
            words = settings | {"na_filter": False}  # a column may be called NA
            header = pd.read_csv(path, header=None, nrows=1, dtype=str, **words)  # type: ignore[call-overload]
            names = [str(c).strip() or f"Unnamed: {i}" for i, c in enumerate(header.iloc[0])]
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header would be cut
                frame = pd.read_csv(path, low_memory=False, index_col=False, **settings)  # type: ignore[call-overload]
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path}: the file is empty") from None
    except pd.errors.ParserWarning:
        raise ValueError(f"{path}: cannot be read as a table: rows have more values than the {len(names)} column names") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8 ({error.reason}): save it in that encoding") from None
    except (ValueError, OSError, EOFError) as error:  # errors of pandas' parser and of pyarrow are ValueErrors
        reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise ValueError(f"{path}: cannot be read as a table: {reason}") from None
    if len(names) == 1 and kind != ".parquet":
        for mark, word in ((";", "';'"), ("\t", "a tab"), ("|", "'|'"), (",", "','")):
            if mark in names[0]:
                raise ValueError(f"{path}: only one column found, and its name holds {word}: set --data.delimiter {mark!r}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: the column name '{twice[0]}' stands there more than once; column names must be unique")
    frame.columns = pd.Index(names)
    if frame.empty:
        raise ValueError(f"{path}: there are column names, but no rows")
    return frame
