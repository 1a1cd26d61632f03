"""Columns that name or number things: identifiers, codes for missing values, hidden groups."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from src.data.tables.columns import Numeric, to_words
from src.data.tables.dates import find_date_formats, is_typed_date
from src.data.tables.leaking_inputs import read_scalar_labels
from src.data.tables.numbers import BadValue, NumberFormat, read_typed_numbers

if TYPE_CHECKING:
    from src.data.tables.table import Table

# words in the names of columns that name what rows belong to
GROUPS = (
    "id|uid|uuid|nr|key|patient|subject|person|participant|user|customer|client|member"
    "|session|visit|site|hospital|clinic|center|centre|batch|plate|well|donor|family"
    "|household|group|scaffold|device|machine|store|shop"
)
# no plurals: a column of visits counts them
NAMES_OF_GROUPS = rf"(?i)(^|[_ .-])({GROUPS})($|[_ .-]|id$)"
NUMBERED_NAME = r"[A-Za-z]{1,12}[-_. #]?\d{1,12}"  # P07, site-12
MISSING_CODES = (
    *(-1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0, -88.0, -77.0),
    *(99.0, 999.0, 9999.0, 99999.0, 999999.0),
)
HUGE = 1e30  # no measurement is as large


def find_identifiers(table: Table) -> list[str]:
    """Finds inputs of whole numbers that seem to number the rows."""
    found = find_row_numbers(table)
    if not found:
        return []
    names = ", ".join(found)
    return [
        f"note: {names}: another whole number in each row, as identifiers are: "
        f"--data.drop '[{names}]' leaves them out"
    ]


def find_row_numbers(table: Table) -> list[str]:
    """Returns the inputs that hold a different whole number in each row, as identifiers do.

    Their order, their density or their name must also speak against measurements.
    """
    found = []
    for column, numbers in list_numeric_inputs(table):
        known = numbers[~np.isnan(numbers)]
        if len(known) < 20 or (known != np.floor(known)).any():
            continue
        if len(np.unique(known)) < len(known):
            continue
        steps = np.diff(known)

        # 10, 40, 30 are as dense as 1, 4, 3; integers above 2^53 are not exact in float64
        step = np.gcd.reduce(steps.astype(np.int64)) if np.abs(known).max() < 2**53 else 1
        dense = known.max() - known.min() < 2 * len(known) * step
        sorted_ = (steps > 0).all() or (steps < 0).all()
        if dense or sorted_ or re.search(NAMES_OF_GROUPS, column):
            found.append(column)
    return found


def find_missing_codes(table: Table) -> list[str]:
    """Finds numbers such as -999 that repeat and are far from all others."""
    notes = []
    for column, numbers in list_numeric_inputs(table):
        values, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
        if len(values) < 4:
            continue
        for end, rest in ((0, values[1:]), (-1, values[:-1])):
            code = values[end]
            times = counts[end]
            gap = min(abs(code - rest[0]), abs(code - rest[-1]))
            is_far = code in MISSING_CODES and times >= 2 and gap > rest[-1] - rest[0]
            if is_far or abs(code) >= HUGE:
                notes.append(
                    f"note: '{column}' holds {code:g} in {times} rows, far from all else: "
                    f"if it means a missing value, set --data.missing '[{code:g}]'"
                )
    return notes


def list_numeric_inputs(table: Table) -> list[tuple[str, np.ndarray]]:
    """Returns the inputs that are numbers, but no parts of dates, with the numbers of all rows."""
    numeric = [column for column in table.columns if isinstance(column, Numeric)]
    columns = [column for column in numeric if isinstance(column.reads, NumberFormat)]
    return [(column.column, column.reads.numbers(table.main[column.source])) for column in columns]


def find_hidden_groups(table: Table) -> list[str]:
    """Finds columns that name what rows belong to, such as patients, in a split at random."""
    if table.group or table.split_column or len(table.table_files.paths) == 3:
        return []
    labels = []
    for name in table.tasks:
        values = read_scalar_labels(table, name)
        if values is not None:
            labels.append(values[1])
    targets = {column for columns in table.targets.values() for column in columns}
    names = [str(name) for name in table.main.columns if name not in targets]
    found = [name for name in names if seems_group(table, name, labels)]
    if not found:
        return []
    listed = ", ".join(f"'{name}'" for name in found[:5]) + (" ..." if len(found) > 5 else "")
    return [
        f"note: rows of train and test share values of {listed}: if these name patients, sites or "
        "the like, a random split makes scores look better than they will be on new ones: "
        f"--data.group {found[0]}"
    ]


def seems_group(table: Table, name: str, labels: list[np.ndarray]) -> bool:
    """Returns whether the rows with one value of a column seem to belong together.

    Args:
        table: The table.
        name: The column.
        labels: The labels of all tasks with one column, (N,) each.
    """
    series = table.main[name]
    distinct = series.nunique()
    known = int(series.notna().sum())
    if not 3 <= distinct <= known / 1.5 or is_typed_date(series) or find_date_formats(series):
        return False
    if re.search(NAMES_OF_GROUPS, name) is not None and distinct >= min(5, known / 2):
        return True

    # without a telling name, there must be many small groups
    if distinct < 10 or known / distinct > 100:
        return False
    if holds_numbered_names(table, name):
        return True
    codes, is_ordered = encode_values(table, name)
    return any(separates_labels(codes, is_ordered, y) for y in labels)


def holds_numbered_names(table: Table, name: str) -> bool:
    """Returns whether a column holds words such as P07 and site-12, which number things."""
    series = table.main[name]
    if read_typed_numbers(series) is not None or table.written[name].share == 1:
        return False
    words = to_words(series).dropna().drop_duplicates()
    return bool(words.str.fullmatch(NUMBERED_NAME).mean() > 0.9)


def encode_values(table: Table, name: str) -> tuple[np.ndarray, bool]:
    """Encodes the values of a column as integers (N,), -1 where missing.

    Returns:
        The codes; and whether their order means anything, as that of numbers does.
    """
    import pandas as pd

    series = table.main[name]
    how = table.written[name]
    if read_typed_numbers(series) is None and how.share < 1:
        return pd.factorize(to_words(series))[0], False
    try:
        numbers = (how.format or NumberFormat()).numbers(series)
    except BadValue:
        numbers = np.full(len(series), np.nan)
    codes = np.unique(numbers, return_inverse=True)[1]
    return np.where(np.isnan(numbers), -1, codes), True


def separates_labels(values: np.ndarray, is_ordered: bool, labels: np.ndarray) -> bool:
    """Returns whether labels agree in rows with the same value, but not in rows with the next ones.

    The names of groups do this; measurements agree with their neighbours, too.

    Args:
        values: (N,) integers, -1 where missing.
        is_ordered: Whether there are next values.
        labels: (N,) labels, NaN where missing.
    """
    known = (values >= 0) & ~np.isnan(labels)
    if known.sum() < 30:
        return False
    places, values = np.unique(values[known], return_inverse=True)
    y = labels[known] - labels[known].mean()
    sums = np.bincount(values, y)
    counts = np.bincount(values)
    several = counts[values] > 1
    if len(places) < 10 or several.sum() < 30 or not (y[several] ** 2).any():
        return False

    # how well the other rows with the same value predict a label
    same = (sums[values] - y) / np.maximum(counts[values] - 1, 1)
    spread = (y[several] ** 2).mean()
    of_same = ((y - same)[several] ** 2).mean() / spread
    if not is_ordered:
        return bool(of_same < 0.6)

    # and how well the rows with the values before and after do
    before = np.clip(values - 1, 0, None)
    after = np.clip(values + 1, None, len(places) - 1)
    around = (sums[before] + sums[after]) / (counts[before] + counts[after])
    of_next = ((y - around)[several] ** 2).mean() / spread
    return bool(of_same < 0.6 and of_next > max(2 * of_same, 0.3))
