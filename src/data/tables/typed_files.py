"""Tables from Parquet and ARFF files, which say what type a column has."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from src.data.tables.file_format import MISSING_WORDS, NotATable, refuse_too_wide
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def read_parquet(path: Path) -> pd.DataFrame:
    """Reads a Parquet file: numbers and dates keep their type, all else becomes text.

    A stored index is a column like others. Durations become seconds, and lists of one length a
    column for each element. ``attrs['notes']`` says so.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    refuse_too_wide(len(file.schema_arrow))
    table = file.read()
    names = [str(name) for name in table.column_names]

    # read_table refuses names that are not unique
    if len(set(names)) < len(names):
        return pd.DataFrame(columns=names)
    notes: list[str] = []
    columns: dict[str, pd.Series] = {}
    for name, column in zip(names, table.columns, strict=True):
        columns |= convert_column(name, column, notes)
    frame = pd.DataFrame({name: series.reset_index(drop=True) for name, series in columns.items()})
    frame.attrs["notes"] = notes
    return frame


def convert_column(name: str, column: pa.ChunkedArray, notes: list[str]) -> dict[str, pd.Series]:
    """Converts one column of a Parquet file.

    Args:
        name: The column's name.
        column: Its values.
        notes: Takes a line if the column is left out or taken apart.

    Returns:
        {name: values}, of no, one or several columns.
    """
    import pandas as pd
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_boolean(kind):
        return {name: column.to_pandas().map({True: "True", False: "False"}).astype("str")}
    if pa.types.is_integer(kind):
        # With gaps, pandas would turn integers into numbers with decimals, and lose digits of long
        # ones.
        whole = pd.UInt64Dtype() if pa.types.is_uint64(kind) else pd.Int64Dtype()
        return {name: column.to_pandas(types_mapper={kind: whole}.get)}
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return {name: column.cast(pa.float64(), safe=False).to_pandas()}
    if pa.types.is_duration(kind):
        notes.append(f"column '{name}' holds durations: read as seconds")
        return {name: column.to_pandas().dt.total_seconds()}
    if pa.types.is_temporal(kind) and not pa.types.is_time(kind):
        dates = pd.to_datetime(column.to_pandas())
        return {name: dates.dt.tz_localize(None) if dates.dt.tz is not None else dates}
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_list or pa.types.is_fixed_size_list(kind):
        elements = split_lists(name, column.to_pandas())
        said = f"read as {len(elements)} columns"
        if not elements:
            said = "left out, since they are no numbers of one length"
        notes.append(f"column '{name}' holds lists: {said}")
        return elements
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        notes.append(f"column '{name}' holds {kind}: left out")
        return {}
    if pa.types.is_null(kind):
        return {name: pd.Series([None] * len(column), dtype="str")}
    return {name: column.cast(pa.large_string()).to_pandas().astype("str")}


def split_lists(name: str, lists: pd.Series) -> dict[str, pd.Series]:
    """Splits a column of lists into a column of numbers for each element.

    Returns:
        {name.i: values}; nothing if lists differ in length, or hold other things than numbers.
    """
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
        raise UserError(f"{path} is an ARFF file; reading it takes: pip install scipy") from None

    raw = path.read_bytes()
    is_gzipped = raw[:2] == b"\x1f\x8b"
    text = (gzip.decompress(raw) if is_gzipped else raw).decode("utf-8-sig")
    data = re.search(r"(?im)^\s*@data\b", text)
    if data is None:
        raise NotATable("cannot be read as a table: it has no line @data")

    # scipy takes the quotation mark from the first row, which may have none: all become double
    body = re.sub(r"(?m)(^|,)[ \t]*'([^'\n]*)'[ \t]*(?=,|$)", r'\1"\2"', text[data.start() :])
    rows, _ = arff.loadarff(io.StringIO(text[: data.start()] + body))
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        if frame[name].dtype == object:
            texts = frame[name].map(lambda value: value.decode()).astype("str").str.strip()
            frame[name] = texts.mask(texts.isin(MISSING_WORDS))
    return frame
