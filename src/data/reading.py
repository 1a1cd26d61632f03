"""Tables from files: CSV, TSV, Parquet and ARFF, with mistakes named by file, column and row.

Text files are read as text, so that nothing is guessed here: what a column holds is decided once,
from the training rows.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

MISSING_WORDS = ("", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A")
FORMATS = ("csv", "tsv", "parquet", "arff")
ENDINGS = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arff": "arff",
}
MOST_COLUMNS = (
    50_000  # each costs milliseconds before the first step: of more nobody would see the end
)
MARKS = ((";", "';'"), ("\t", "a tab"), ("|", "'|'"), (",", "','"))


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the nearest ones, or all if none is near."""
    known = [str(k) for k in known]
    lowered = {k.lower(): k for k in known}
    near = [lowered[k] for k in difflib.get_close_matches(name.lower(), lowered, n=3)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"


@dataclass(frozen=True)
class FileFormat:
    """How the files of a table are laid out.

    Attributes:
        format: csv, tsv, parquet or arff; None: what the ending of the name says.
        delimiter: FeatureExchange the columns of a text file; None: a comma, or a tab in .tsv
            files.
        names: Names of the columns of a text file without a header.
        missing: Further words that mean that a value is missing.
        missing_defaults: Whether ``MISSING_WORDS`` mean that, too.
    """

    format: str | None = None
    delimiter: str | None = None
    names: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    missing_defaults: bool = True

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise UserError(f"data.format is '{self.format}'; known are {', '.join(FORMATS)}")
        if self.delimiter is not None and len(self.separator) != 1 and self.separator != r"\s+":
            raise UserError(
                f"data.delimiter is '{self.delimiter}'; it must be one character, or 'spaces'"
            )

    @property
    def separator(self) -> str:
        """The delimiter as pandas takes it; a tab may be typed as in a shell."""
        return {"\\t": "\t", "spaces": r"\s+"}.get(self.delimiter or "", self.delimiter or "")

    @property
    def words(self) -> list[str]:
        """The words that mean that a value is missing; of whole numbers also with decimals."""
        numbers = [word for word in self.missing if re.fullmatch(r"-?\d+", word)]
        more = [f"{word}.{'0' * zeros}" for word in numbers for zeros in (1, 2, 3)]
        return [*(MISSING_WORDS if self.missing_defaults else ("",)), *self.missing, *more]

    def has_commas(self, path: str) -> bool:
        """Whether commas separate the columns of a file."""
        ending = next(
            (ENDINGS[e.lower()] for e in reversed(Path(path).suffixes) if e.lower() in ENDINGS),
            "csv",
        )
        return (self.format or ending) == "csv" and self.separator in ("", ",")

    def kind(self, path: Path) -> str:
        """Returns which of ``FORMATS`` a file is of.

        Raises:
            UserError: Its name does not tell.
        """
        if self.format is not None:
            return self.format
        for ending in reversed(path.suffixes):
            if ending.lower() in ENDINGS:
                return ENDINGS[ending.lower()]
        raise UserError(
            f"{path}: unknown kind of file; a table's name ends in .csv, .tsv or .parquet, else say what it is: "
            f"--data.format {' or '.join(FORMATS)}"
        )


def read_table(path: str | Path, layout: FileFormat | None = None) -> pd.DataFrame:
    """Reads a table, its texts without spaces around them; ``attrs['notes']`` says what was left out or taken apart.

    Args:
        path: The file, compressed or not.
        layout: How it is laid out.

    Raises:
        UserError: The file is missing, empty, of another kind, or not a table with unique column
            names.
    """
    import pandas as pd  # half a second to import: only where it is used

    layout = layout or FileFormat()
    if "://" in str(path):
        raise UserError(f"{path}: is an address, not a file; fetch it first")
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    kind = layout.kind(path)
    try:
        if kind == "parquet":
            frame = read_parquet(path)
        elif kind == "arff":
            frame = read_arff(path)
        else:
            frame = read_text(path, layout, layout.separator or ("\t" if kind == "tsv" else ","))
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the file is empty") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is no text in UTF-8 ({error.reason}): save it in that encoding"
        ) from None
    except NotATable as error:
        raise UserError(f"{path}: {error}") from None
    except (
        ValueError,
        OSError,
        EOFError,
        NotImplementedError,
    ) as error:  # of pandas' parser, of pyarrow, of scipy
        reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise UserError(f"{path}: cannot be read as a table: {reason}") from None
    counts = Counter(str(name) for name in frame.columns)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise UserError(
            f"{path}: the column name '{twice[0]}' stands there more than once; column names must be unique, "
            "and a file without a header needs --data.names '[first, second, ...]'"
        )
    if frame.empty:
        raise UserError(f"{path}: there are column names, but no rows")
    if kind in ("parquet", "arff") and layout.missing:
        mask_missing(frame, layout.words)
    return frame


def mask_missing(frame: pd.DataFrame, words: Sequence[str]) -> None:
    """Masks the words and numbers of a typed file that mean that a value is missing, in place."""
    import pandas as pd

    numbers = [float(word) for word in words if re.fullmatch(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", word)]
    for name in frame.columns:
        if pd.api.types.is_numeric_dtype(frame[name]):
            frame[name] = frame[name].mask(frame[name].isin(numbers))
        elif frame[name].dtype == "str":
            frame[name] = frame[name].mask(frame[name].isin(words))


class NotATable(UserError):
    """What is wrong with a file, in words of ours."""


def refuse_too_wide(columns: int) -> None:
    """Refuses a file of more columns than can be looked at one by one.

    Raises:
        NotATable: It has more.
    """
    if columns > MOST_COLUMNS:
        raise NotATable(
            f"has {columns:,} columns, and at most {MOST_COLUMNS:,} can be read: keep those that matter"
        )


def read_text(path: Path, layout: FileFormat, separator: str) -> pd.DataFrame:
    """Reads a text file; all columns are texts."""
    import pandas as pd

    # a column may be called NA; a byte-order mark belongs to no name
    as_text = {"sep": separator, "skipinitialspace": True, "dtype": "str", "encoding": "utf-8-sig"}
    as_text |= {"keep_default_na": False, "na_filter": False}
    # as one text first, since pandas takes half a minute to make columns of 200,000
    line = pd.read_csv(
        path, header=None, nrows=1, **as_text | {"sep": "\0", "quoting": csv.QUOTE_NONE}
    )  # type: ignore[call-overload]
    refuse_too_wide(
        len(re.split(separator if len(separator) > 1 else re.escape(separator), line.iat[0, 0]))
    )
    first = pd.read_csv(path, header=None, nrows=1, **as_text)  # type: ignore[call-overload]
    header = [str(cell).strip() for cell in first.iloc[0]]
    if len(header) == 1:
        for mark, word in MARKS:
            if mark in header[0]:
                raise NotATable(
                    f"only one column found, and its name holds {word}: set --data.delimiter {mark!r}"
                )
        if " " in header[0]:
            below = 0  # words of the first row
            with suppress(pd.errors.EmptyDataError):
                second = pd.read_csv(path, header=None, skiprows=1, nrows=1, **as_text)  # type: ignore[call-overload]
                below = len(str(second.iat[0, 0]).split()) if second.shape == (1, 1) else 0
            if below == len(header[0].split()):
                raise NotATable(
                    "only one column found, with spaces in its name and below: set --data.delimiter spaces"
                )
    names = list(layout.names) if layout.names else named(header)
    if len(names) != len(header):
        raise NotATable(
            f"data.names has {len(names)} names, but the first row has {len(header)} values"
        )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error", pd.errors.ParserWarning
        )  # rows longer than the header would be cut
        try:
            rows = 0 if layout.names is None else None
            frame = pd.read_csv(path, header=rows, index_col=False, **as_text)  # type: ignore[call-overload]
        except pd.errors.ParserWarning:
            raise NotATable(
                f"cannot be read as a table: rows have more values than the {len(names)} column names"
            ) from None
    frame.columns = pd.Index(names)
    words = layout.words
    for name in frame.columns if frame.columns.is_unique else ():
        texts = frame[name].str.strip()
        frame[name] = texts.mask(texts.isin(words))
    return frame


def named(header: Sequence[str]) -> list[str]:
    """Names the columns that have none, as pandas does: an index that was saved twice is Unnamed: 0.1 and Unnamed: 0."""
    names = []
    for i, name in enumerate(header):
        new = name or f"Unnamed: {i}"
        while not name and new in header:
            new += ".1"
        names.append(new)
    return names


def read_parquet(path: Path) -> pd.DataFrame:
    """Reads a Parquet file: numbers and dates stay what they are, all else becomes text.

    A stored index is a column like others. Durations become seconds, lists of one length a column
    for each element.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    notes: list[str] = []
    columns: dict[str, pd.Series] = {}
    file = pq.ParquetFile(path)
    refuse_too_wide(len(file.schema_arrow))
    table = file.read()
    names = [str(name) for name in table.column_names]
    if len(set(names)) < len(names):
        return pd.DataFrame(columns=names)
    for name, column in zip(names, table.columns, strict=True):
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
            kind = column.type
        if pa.types.is_boolean(kind):
            columns[name] = column.to_pandas().map({True: "True", False: "False"}).astype("str")
        elif pa.types.is_integer(kind):
            # with gaps pandas would make numbers with decimals of them, and lose digits of long
            # ones
            whole = pd.UInt64Dtype() if pa.types.is_uint64(kind) else pd.Int64Dtype()
            columns[name] = column.to_pandas(types_mapper={kind: whole}.get)
        elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            columns[name] = column.cast(pa.float64(), safe=False).to_pandas()
        elif pa.types.is_duration(kind):
            columns[name] = column.to_pandas().dt.total_seconds()
            notes.append(f"column '{name}' holds durations: read as seconds")
        elif pa.types.is_temporal(kind) and not pa.types.is_time(kind):
            dates = pd.to_datetime(column.to_pandas())
            columns[name] = dates.dt.tz_localize(None) if dates.dt.tz is not None else dates
        elif (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        ):
            elements = list_elements(name, column.to_pandas())
            columns |= elements
            said = (
                f"read as {len(elements)} columns"
                if elements
                else "left out, since they are no numbers of one length"
            )
            notes.append(f"column '{name}' holds lists: {said}")
        elif pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            notes.append(f"column '{name}' holds {kind}: left out")
        elif pa.types.is_null(kind):
            columns[name] = pd.Series([None] * len(column), dtype="str")
        else:
            columns[name] = column.cast(pa.large_string()).to_pandas().astype("str")
    frame = pd.DataFrame({name: series.reset_index(drop=True) for name, series in columns.items()})
    frame.attrs["notes"] = notes
    return frame


def list_elements(name: str, lists: pd.Series) -> dict[str, pd.Series]:
    """The elements of a column of lists as columns of numbers; none where lists differ in length or hold other things."""
    import numpy as np
    import pandas as pd

    known = lists.dropna()
    sizes = {len(values) for values in known}
    if len(sizes) != 1 or not sizes.pop():
        return {}
    try:
        stacked = np.stack([np.asarray(values, dtype=np.float64) for values in known])
    except (TypeError, ValueError):
        return {}
    if stacked.ndim != 2:
        return {}
    whole = np.full((len(lists), stacked.shape[1]), np.nan)
    whole[lists.notna().to_numpy()] = stacked
    return {f"{name}.{i}": pd.Series(values) for i, values in enumerate(whole.T)}


def read_arff(path: Path) -> pd.DataFrame:
    """Reads an ARFF file through scipy: numbers are numbers, nominal values texts."""
    import pandas as pd

    try:
        from scipy.io import arff
    except ModuleNotFoundError:
        raise UserError("ARFF needs scipy: pip install scipy") from None

    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    # scipy takes the mark of quotations from the first row, which may have none
    data = re.search(r"(?im)^\s*@data\b", text)
    if data is None:
        raise NotATable("cannot be read as a table: it has no line @data")
    body = re.sub(r"(?m)(^|,)[ \t]*'([^'\n]*)'[ \t]*(?=,|$)", r'\1"\2"', text[data.start() :])
    rows, _ = arff.loadarff(io.StringIO(text[: data.start()] + body))
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        if frame[name].dtype == object:
            texts = frame[name].map(lambda value: value.decode()).astype("str").str.strip()
            frame[name] = texts.mask(texts.isin(MISSING_WORDS))
    return frame
