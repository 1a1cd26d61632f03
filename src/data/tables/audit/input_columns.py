"""The inputs of a table as columns of numbers or of categories, for checks column by column."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from src.data.audit.finding import Mend, write_list
from src.data.tables.columns import MemberColumn, Numeric
from src.data.tables.input_encoding import find_table_inputs

if TYPE_CHECKING:
    from src.data.tables.table import Table


@dataclass(frozen=True)
class InputValues:
    """The values of an input in all rows of a table's file.

    Attributes:
        column: The name of the input, such as day.month.
        source: The column of the file.
        values: (N,) numbers in standard deviations with NaN where missing, or codes of categories.
        numeric: Whether they are numbers.
    """

    column: str
    source: str
    values: np.ndarray
    numeric: bool


def list_inputs(table: Table, role: str = "train") -> Iterator[InputValues]:
    """Yields the numeric and categorical inputs of all rows of a file."""
    encoded = find_table_inputs(table.encode_inputs_of(role))
    if not encoded:
        return
    dense = encoded["dense"].numpy()
    categorical = iter(encoded["categorical"].numpy().T)
    place = 0
    for column in table.columns:
        if isinstance(column, MemberColumn):
            continue
        if isinstance(column, Numeric):
            values = dense[:, place].astype(np.float64)
            if column.indicator:
                values = np.where(dense[:, place + 1] > 0, np.nan, values)
            place += 1 + column.indicator
            yield InputValues(column.column, column.source, values, True)
        else:
            yield InputValues(column.column, column.source, next(categorical), False)


def mend_by_drop(table: Table, columns: Iterable[str], effect: str) -> Mend | None:
    """Returns the settings that leave out columns, and the columns that are left out already.

    A data class of its own may have no setting ``drop``, but name its inputs.
    """
    settings = inspect.signature(type(table).__init__).parameters
    dropped = list(dict.fromkeys(columns))
    if "drop" in settings:
        return Mend((("drop", write_list(dict.fromkeys([*table.drop, *dropped]))),), effect)
    if "inputs" in settings:
        sources = dict.fromkeys(column.source for column in table.columns)
        kept = [source for source in sources if source not in dropped]
        return Mend((("inputs", write_list(kept)),), effect) if kept else None
    return None


def has_setting(table: Table, name: str) -> bool:
    """Returns whether the class of a table has a setting."""
    return name in inspect.signature(type(table).__init__).parameters
