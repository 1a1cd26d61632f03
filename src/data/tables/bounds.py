"""Columns of numbers among which bounds stand, such as >10 and <0.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from src.data.kinds import find_declared_kind, read_forms
from src.data.tables.numbers import BadValue, NumberFormat, is_texts, mask_words_for_missing
from src.errors import UserError
from src.tasks.bounds import MARK, SIGNS, write_bound

if TYPE_CHECKING:
    import pandas as pd

    from src.data.tables.table import Table


def remove_marks(series: pd.Series) -> pd.Series:
    """Removes the marks of bounds from the texts of a column."""
    return series.str.replace(MARK, "", regex=True) if is_texts(series) else series


def find_bounded_columns(table: Table) -> set[str]:
    """Returns the columns whose task is set to a kind that reads bounds."""
    found = set()
    for name, columns in table.targets.items():
        try:
            kind = find_declared_kind(table.settings.get(name, {}))
        except UserError:
            # said when the task is made
            continue
        if kind is not None:
            forms = zip(columns, read_forms(kind, len(columns)), strict=True)
            found |= {column for column, form in forms if form == "bound"}
    return found


def read_bounds(series: pd.Series, form: NumberFormat) -> np.ndarray:
    """Reads labels that may be bounds: (N,) of numbers, texts such as '>10', and None.

    Raises:
        BadValue: A text is neither.
    """
    numbers = form.numbers(remove_marks(series))
    read = numbers.astype(object)
    read[np.isnan(numbers)] = None
    if is_texts(series):
        marks = series.str.extract(MARK, expand=False)
        for row in np.flatnonzero(marks.notna() & ~np.isnan(numbers)):
            read[row] = write_bound(numbers[row], SIGNS[marks.iloc[row]], digits=15)
    return read


def find_bound(series: pd.Series, form: NumberFormat | None) -> str | None:
    """Returns the first bound of a column of numbers and bounds; None for other columns."""
    if not is_texts(series):
        return None
    known = mask_words_for_missing(series).dropna()
    marked = known.str.match(MARK)
    if not marked.any() or marked.all():
        return None
    try:
        (form or NumberFormat()).numbers(remove_marks(known))
    except BadValue:
        return None
    return str(known[marked].iloc[0])
