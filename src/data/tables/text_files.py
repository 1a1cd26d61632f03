"""Tables from text files, whose columns all stay texts."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.data.tables.file_format import FileFormat, NotATable, refuse_too_wide

if TYPE_CHECKING:
    import pandas as pd

MARKS = {";": "';'", "\t": "a tab", "|": "'|'", ",": "','"}  # other delimiters, in words


def read_text_file(path: Path, layout: FileFormat, separator: str) -> pd.DataFrame:
    """Reads a text file; all columns are texts without spaces around them.

    Args:
        path: The file, compressed or not.
        layout: How it is laid out.
        separator: The mark between columns, as pandas takes it.

    Raises:
        NotATable: Its rows or columns do not fit together.
    """
    import pandas as pd

    # Nothing is missing yet, since a column may be called NA. utf-8-sig skips a byte-order mark.
    settings: dict[str, Any] = {
        "sep": separator,
        "skipinitialspace": True,
        "dtype": "str",
        "encoding": "utf-8-sig",
        "keep_default_na": False,
        "na_filter": False,
    }
    check_width(path, separator, settings)
    header = read_first_row(path, settings)
    if len(header) == 1:
        refuse_other_delimiter(path, header[0], settings)
    names = list(layout.names) if layout.names else name_columns(header)
    if len(names) != len(header):
        raise NotATable(
            f"data.names has {len(names)} names, but the first row has {len(header)} values"
        )

    # pandas would cut rows that are longer than the header, and only warn
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            header_row = 0 if layout.names is None else None
            frame = pd.read_csv(path, header=header_row, index_col=False, **settings)
        except pd.errors.ParserWarning:
            raise NotATable(
                "cannot be read as a table: "
                f"rows have more values than the {len(names)} column names"
            ) from None

    # read_table refuses names that are not unique
    frame.columns = pd.Index(names)
    if frame.columns.is_unique:
        for name in frame.columns:
            texts = frame[name].str.strip()
            frame[name] = texts.mask(texts.isin(layout.words_for_missing))
    return frame


def check_width(path: Path, separator: str, settings: dict[str, Any]) -> None:
    """Counts the columns of the first line, as one text.

    pandas takes half a minute to make columns of 200,000 values.

    Raises:
        NotATable: There are too many.
    """
    import pandas as pd

    as_one = {**settings, "sep": "\0", "quoting": csv.QUOTE_NONE}
    line = pd.read_csv(path, header=None, nrows=1, **as_one).iat[0, 0]
    form = separator if len(separator) > 1 else re.escape(separator)
    refuse_too_wide(len(re.split(form, line)))


def read_first_row(path: Path, settings: dict[str, Any]) -> list[str]:
    """Returns the values of the first row, without spaces around them."""
    import pandas as pd

    first = pd.read_csv(path, header=None, nrows=1, **settings)
    return [str(cell).strip() for cell in first.iloc[0]]


def refuse_other_delimiter(path: Path, header: str, settings: dict[str, Any]) -> None:
    """Refuses a file with a single column if another delimiter seems to separate several.

    Raises:
        NotATable: One does.
    """
    import pandas as pd

    for mark, word in MARKS.items():
        if mark in header:
            raise NotATable(
                f"only one column found, and its name holds {word}: set --data.delimiter {mark!r}"
            )
    if " " not in header:
        return

    # spaces separate columns if the first row has as many words as the header
    words = 0
    with suppress(pd.errors.EmptyDataError):
        second = pd.read_csv(path, header=None, skiprows=1, nrows=1, **settings)
        if second.shape == (1, 1):
            words = len(str(second.iat[0, 0]).split())
    if words == len(header.split()):
        raise NotATable(
            "only one column found, with spaces in its name and below: set --data.delimiter spaces"
        )


def name_columns(header: Sequence[str]) -> list[str]:
    """Names the columns without a name, as pandas does.

    An index that was saved twice has the names Unnamed: 0.1 and Unnamed: 0.
    """
    names = []
    for i, name in enumerate(header):
        new = name or f"Unnamed: {i}"
        while not name and new in header:
            new += ".1"
        names.append(new)
    return names
