"""Columns that name what rows belong to, such as patients, and splits by such groups."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from src.data.audit.finding import Finding, Mend, list_few, write_name
from src.data.tables.audit.identifiers import NAMES_OF_GROUPS
from src.data.tables.audit.input_columns import has_setting
from src.data.tables.audit.label_columns import list_label_columns
from src.data.tables.columns import to_words
from src.data.tables.dates import find_date_formats, is_typed_date
from src.data.tables.numbers import BadValue, NumberFormat, read_typed_numbers

if TYPE_CHECKING:
    from src.data.tables.table import Table

NUMBERED_NAME = r"[A-Za-z]{1,12}[-_. #]?\d{1,12}"  # P07, site-12


def find_hidden_groups(table: Table) -> list[Finding]:
    """Finds columns that name what rows belong to, such as patients, in a split at random."""
    if table.group or table.split_column or table.time or len(table.table_files.paths) == 3:
        return []
    labels = [label.values for label in list_label_columns(table)]
    targets = {column for columns in table.targets.values() for column in columns}
    names = [str(name) for name in table.main.columns if name not in targets]
    found = [name for name in names if seems_group(table, name, labels)]
    if not found:
        return []
    sentence = (
        f"rows of train and test share values of {list_few(found)}: if these name patients, sites "
        "or the like, a random split makes scores look better than they will be on new ones"
    )
    mend = None
    if has_setting(table, "group"):
        settings = [("group", write_name(found[0]))]
        # only one setting can decide the split
        if table.stratify:
            settings.append(("stratify", "null"))
        mend = Mend(tuple(settings), "keeps the rows of one on one side")
    return [Finding("medium", "groups", sentence, mend, tuple(found))]


def find_odd_shares(table: Table) -> list[Finding]:
    """Finds splits by few groups whose shares are far from those asked for."""
    if not table.group:
        return []
    asked = {"val": table.val_fraction, "test": table.test_fraction}
    far = []
    for name, wanted in asked.items():
        if name in table.table_files.paths:
            continue
        share = len(table.rows[name]) / len(table.main)
        if abs(share - wanted) > max(0.05, wanted / 3):
            far.append(f"{share:.0%} {name} rows, {wanted:.0%} asked for")
    if not far:
        return []
    groups = table.main[table.group].nunique()
    shares = " and ".join(far)
    sentence = f"{shares}: '{table.group}' has {groups} groups, which cannot be cut"
    return [Finding("medium", "groups", sentence, None, (table.group,))]


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
    if not 3 <= distinct <= known / 1.5:
        return False
    is_named = re.search(NAMES_OF_GROUPS, name) is not None and distinct >= min(5, known / 2)
    # without a telling name, there must be many small groups
    if not is_named and (distinct < 10 or known / distinct > 100):
        return False
    if is_typed_date(series) or find_date_formats(series):
        return False
    if is_named or holds_numbered_names(table, name):
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
