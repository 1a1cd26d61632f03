"""The side of the split of each row of a table, as the settings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.data.folds import deal_at_random, deal_by_groups, deal_by_strata, split_by_fold
from src.data.kinds import find_declared_kind
from src.data.tables.columns import to_words
from src.data.tables.copies import group_copies
from src.data.tables.dates import find_date_formats, is_typed_date
from src.data.tables.files import ROLES
from src.data.tables.labels import FEW_NUMBERS, MOST_CLASSES
from src.data.tables.number_formats import fit_formats
from src.data.tables.numbers import BadValue, is_texts, mask_words_for_missing
from src.data.tables.reading import number_row
from src.data.tables.splits import (
    keep_rare_classes,
    split_at_random,
    split_by_column,
    split_by_groups,
    split_by_strata,
)
from src.data.tables.times import read_times, split_by_time
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from src.data.tables.table import Table


def assign_sides(table: Table) -> tuple[np.ndarray, int]:
    """Assigns a side to each row of a table's first file.

    Returns:
        (N,) of 'train', 'val' or 'test'; and the number of rows that were moved to train because no
        other row there has their class.

    Raises:
        UserError: A row lacks its group, or the column of sides holds another word.
    """
    main = table.main
    if table.split_column:
        words = to_words(main[table.split_column]).tolist()
        try:
            return split_by_column(words), 0
        except BadValue as error:
            place = f"{table.path} row {number_row(main, error.row)}"
            raise UserError(f"{place}: column '{table.split_column}' {error}") from None

    # a side with a file of its own takes no rows of the first one
    val = 0.0 if table.val_path else table.val_fraction
    test = 0.0 if table.test_path else table.test_fraction
    groups = read_groups(table) if table.group or table.keep_copies_together else None
    strata = encode_jointly(main[table.stratify]) if table.stratify else None
    if table.folds is not None:
        side = assign_fold(table, table.folds, val, groups, strata)
    elif groups is not None:
        side = split_by_groups(groups, val, test, table.split_seed)
    elif table.time:
        side = split_by_time(read_times_of_rows(table, table.time), val, test)
    elif strata is not None:
        side = split_by_strata(strata, val, test, table.split_seed)
    else:
        side = split_at_random(len(main), val, test, table.split_seed)

    # a class that no training row has could never be predicted
    labels = encode_classes_of_tasks(table, side == "train")

    # a fold that tests has its rows, however few a rare class leaves it
    fixed = (side == "test") & (table.folds is not None)
    moved = keep_rare_classes(side, labels, groups)
    if groups is not None:
        shares = {"val": val, "test": 0.0 if table.folds is not None else test}
        moved = refill_sides(side, moved, labels, groups, shares, table.split_seed, fixed)
    return side, int(moved.sum())


def assign_fold(
    table: Table,
    folds: int,
    val: float,
    groups: np.ndarray | None,
    strata: np.ndarray | None,
) -> np.ndarray:
    """Assigns sides so that one fold tests.

    Args:
        table: The table.
        folds: Number of folds.
        val: Share of all rows that validates.
        groups: (N,) groups that must stay in one fold.
        strata: (N,) integers that each fold has in proportion.

    Returns:
        (N,) of 'train', 'val' or 'test'.

    Raises:
        UserError: There are fewer rows, groups or rows of a stratum than folds.
    """
    seed = table.split_seed
    try:
        if groups is not None:
            dealt = deal_by_groups(groups, folds, seed)
        elif strata is not None:
            dealt = deal_by_strata(strata, folds, seed)
        else:
            dealt = deal_at_random(len(table.main), folds, seed)
    except UserError as error:
        raise UserError(f"{table.path}: {error}") from None
    return split_by_fold(dealt, table.fold, val, seed, groups, strata)


def find_rows_of_sides(table: Table) -> tuple[dict[str, np.ndarray], list[str]]:
    """Finds the rows of each side in a table's first file.

    Returns:
        {'train', 'val', 'test': row numbers}; and a note where rows had to be moved to train.

    Raises:
        UserError: A side has no rows, here or in a file of its own.
    """
    return collect_rows(table, *assign_sides(table))


def collect_rows(
    table: Table, side: np.ndarray, moved: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the rows of each side; see :func:`find_rows_of_sides`.

    Args:
        table: The table.
        side: (N,) of 'train', 'val' or 'test'.
        moved: Number of rows that were moved to train because no other row there has their class.
    """
    rows = {name: np.flatnonzero(side == name) for name in ROLES}
    for name, numbers in rows.items():
        if not len(numbers) and (name == "train" or name not in table.table_files.paths):
            reason = explain_empty(table, name, moved)
            raise UserError(f"{table.path}: the {name} split has no rows: {reason}")
    if not moved:
        return rows, []
    return rows, [f"rows moved to train, since no other row there has their class: {moved}"]


def explain_empty(table: Table, name: str, moved: int) -> str:
    """Says why a split has no rows.

    Args:
        table: The table.
        name: The split.
        moved: Rows that were moved to train for their class.
    """
    if table.split_column:
        return f"column '{table.split_column}' names none"
    if {"val": table.val_fraction, "test": table.test_fraction}.get(name) == 0:
        return f"data.{name}_fraction is 0, and data.{name}_path names no file"
    if table.time and not moved:
        times = table.main[table.time].nunique()
        return f"column '{table.time}' has {times} times, too few or too common ones"
    if table.group:
        groups = table.main[table.group].nunique()
        return f"column '{table.group}' has {groups} groups, too few or too large ones"
    if moved > 2:
        return (
            f"{moved} rows were moved to train, since no other row there has their class; "
            "of a target that is a number, set data.tasks.TARGET to Regression"
        )
    return f"{len(table.main)} rows are too few"


def read_times_of_rows(table: Table, column: str) -> np.ndarray:
    """Returns the time of each row (N,), as a number.

    Raises:
        UserError: The column holds no times, or a row has none.
    """
    try:
        times, _ = read_times(table.main[column], table.date_format)
    except BadValue as error:
        place = f"{table.path} row {number_row(table.main, error.row)}"
        raise UserError(f"{place}: data.time names '{column}', which {error}") from None
    if np.isnan(times).any():
        row = number_row(table.main, int(np.isnan(times).argmax()))
        raise UserError(
            f"{table.path} row {row}: column '{column}' is missing; each row needs its time"
        )
    return times


def read_groups(table: Table) -> np.ndarray:
    """Returns the group of each row (N,).

    Raises:
        UserError: A row has none.
    """
    if table.keep_copies_together:
        return group_copies(table.main, [table.id])
    words = to_words(table.main[str(table.group)])
    if words.isna().any():
        row = number_row(table.main, int(words.isna().to_numpy().argmax()))
        raise UserError(
            f"{table.path} row {row}: column '{table.group}' is missing; each row needs its group"
        )
    return words.to_numpy(dtype=object)


def refill_sides(
    side: np.ndarray,
    moved: np.ndarray,
    labels: Sequence[np.ndarray],
    groups: np.ndarray,
    shares: Mapping[str, float],
    seed: int,
    fixed: np.ndarray,
) -> np.ndarray:
    """Splits the other groups again while a side has lost all of its groups to train.

    Args:
        side: (N,) sides, changed in place.
        moved: bool (N,), rows that were moved to train for rare classes.
        labels: (N,) integers for each target with classes.
        groups: (N,) groups.
        shares: Share of the rows for 'val' and for 'test'.
        seed: Seed of the split.
        fixed: bool (N,), rows that stay where they are.

    Returns:
        bool (N,), the rows that had to be moved in all.
    """
    bound = moved.copy()
    while any(share and not (side == name).any() for name, share in shares.items()):
        free = ~np.isin(groups, groups[bound | fixed])

        # the free rows must fill the shares of all rows
        more = len(side) / max(free.sum(), 1)
        if not moved.any() or more * sum(shares.values()) >= 1:
            break
        val = more * shares["val"]
        side[free] = split_by_groups(groups[free], val, more * shares["test"], seed)
        moved = keep_rare_classes(side, labels, groups)
        bound |= moved
    return bound


def encode_classes_of_tasks(table: Table, train: np.ndarray) -> list[np.ndarray]:
    """Encodes the classes of each task that has some as integers (N,).

    Args:
        table: The table.
        train: bool (N,), the rows that train so far.
    """
    found = [encode_classes_of_task(table, name, train) for name in table.targets]
    return [codes for codes in found if codes is not None]


def encode_classes_of_task(table: Table, name: str, train: np.ndarray) -> np.ndarray | None:
    """Encodes the classes of a task as integers (N,).

    Args:
        table: The table.
        name: The task.
        train: bool (N,), the rows that train so far; they alone tell whether labels are classes.

    Returns:
        The codes; None for numbers, and for tasks of several columns.
    """
    if not table.single[name]:
        return None
    given = table.settings.get(name, {})
    try:
        kind = find_declared_kind(given)
    except UserError as error:
        raise UserError(f"{table.path}: target '{name}' {error}") from None
    surely = kind is not None and set(kind.label_forms) == {"class"}
    if kind is not None and not surely:
        return None
    series = table.main[table.targets[name][0]]
    return encode_classes(series, train, surely, table.decimal, table.thousands)


def encode_classes(
    series: pd.Series, train: np.ndarray, surely: bool, decimal: str | None, thousands: str | None
) -> np.ndarray | None:
    """Encodes a column of labels as integers (N,), -1 where missing.

    Args:
        series: The labels of all rows.
        train: bool (N,), the rows that train. The kind of a task is inferred from these, however
            many more values the others have.
        surely: Whether it is known that the labels are classes.
        decimal: The mark before decimals, if the settings name it.
        thousands: The mark between thousands, if the settings name it.

    Returns:
        The codes; None if the labels are numbers, dates or free text.
    """
    import pandas as pd

    codes, _ = pd.factorize(to_words(series))
    if surely:
        return codes

    # dates are refused later, with a better message
    if is_typed_date(series) or find_date_formats(series):
        return None
    numeric = True
    if is_texts(series):
        numeric = max(fit_formats(series, decimal, thousands).values(), default=0.0) > 0.5
        if numeric:
            codes, _ = pd.factorize(mask_words_for_missing(series))
    most = FEW_NUMBERS if numeric else MOST_CLASSES
    distinct = np.unique(codes[train & (codes >= 0)])
    return codes if len(distinct) <= most else None


def encode_jointly(frame: pd.DataFrame) -> np.ndarray:
    """Encodes the combinations of values of some columns as integers (N,)."""
    words = frame.apply(to_words)
    groups = words.groupby(list(frame.columns), dropna=False, sort=True)
    codes: np.ndarray = groups.ngroup().to_numpy()
    return codes
