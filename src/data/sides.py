"""The side of the split that each row of a table is on, as its settings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.data.columns import to_words
from src.data.dates import date_formats, is_typed_date
from src.data.kinds import declared
from src.data.labels import FEW_NUMBERS, MOST_CLASSES
from src.data.numbers import is_texts, shares, without_words_for_none
from src.data.splits import (
    split_by_column,
    split_by_groups,
    keep_rare_classes,
    split_at_random,
    split_by_strata,
)
from src.errors import UserError
from src.tasks import BinaryClassification, Classification, Task

if TYPE_CHECKING:
    import pandas as pd

    from src.data.table import Table


def sides(table: Table) -> tuple[np.ndarray, int]:
    """Returns the side of each row of a table's first file, and how many rows were moved to train for a rare class.

    Returns:
        (N,) of 'train', 'val' or 'test', and a number.

    Raises:
        UserError: A row lacks its group, or its side is none.
    """
    main = table.main
    val = 0.0 if table.val_path else table.val_fraction
    test = 0.0 if table.test_path else table.test_fraction
    groups = None
    if table.split_column:
        try:
            return split_by_column(to_words(main[table.split_column]).tolist()), 0
        except ValueError as error:
            raise UserError(f"{table.path}: column '{table.split_column}' {error}") from None
    if table.group:
        words = to_words(main[table.group])
        if words.isna().any():
            row = int(words.isna().to_numpy().argmax())
            raise UserError(
                f"{table.path} row {row + 1}: column '{table.group}' is missing; each row needs its group"
            )
        groups = words.to_numpy(dtype=object)
        side = split_by_groups(groups, val, test, table.split_seed)
    elif table.stratify:
        side = split_by_strata(joint_codes(main[table.stratify]), val, test, table.split_seed)
    else:
        side = split_at_random(len(main), val, test, table.split_seed)
    train = side == "train"
    labels = [
        codes for name in table.targets if (codes := codes_of_task(table, name, train)) is not None
    ]
    moved = keep_rare_classes(side, labels, groups)
    if groups is not None:
        moved = refill(side, moved, labels, groups, {"val": val, "test": test}, table.split_seed)
    return side, int(moved.sum())


def refill(
    side: np.ndarray,
    moved: np.ndarray,
    labels: Sequence[np.ndarray],
    groups: np.ndarray,
    shares: Mapping[str, float],
    seed: int,
) -> np.ndarray:
    """Deals the other groups out anew, in place, as long as a side has lost all of its groups to train for rare classes.

    Returns:
        The rows that had to be moved: bool (N,).
    """
    bound = moved.copy()
    while any(share and not (side == name).any() for name, share in shares.items()):
        free = ~np.isin(groups, groups[bound])
        more = len(side) / max(free.sum(), 1)
        if not moved.any() or more * sum(shares.values()) >= 1:
            break
        side[free] = split_by_groups(
            groups[free], more * shares["val"], more * shares["test"], seed
        )
        moved = keep_rare_classes(side, labels, groups)
        bound |= moved
    return bound


def codes_of_task(table: Table, name: str, train: np.ndarray) -> np.ndarray | None:
    """The classes of a task as integers (N,), as the rows that ``train`` so far show them; None for numbers and several columns."""
    if not table.single[name]:
        return None
    given = table.settings.get(name, {})
    try:
        kind = type(given) if isinstance(given, Task) else declared(given)[0]
    except ValueError as error:
        raise UserError(f"{table.path}: target '{name}' {error}") from None
    surely = kind is not None and issubclass(kind, Classification | BinaryClassification)
    if kind is not None and not surely:
        return None
    return class_codes(
        table.main[table.targets[name][0]], train, surely, table.decimal, table.thousands
    )


def class_codes(
    series: pd.Series, train: np.ndarray, surely: bool, decimal: str | None, thousands: str | None
) -> np.ndarray | None:
    """The classes of a column of labels as integers (N,), -1 where missing; None if its labels are numbers or free text.

    Args:
        series: The labels of all rows.
        train: Which of them train: (N,) bool. The kind of a task is found from these, however many
            more values the others have.
        surely: Whether it is known that they are classes.
        decimal: The mark before decimals, where it is set by hand.
        thousands: The mark between thousands, where it is set by hand.
    """
    import pandas as pd

    codes, _ = pd.factorize(to_words(series))
    if surely:
        return codes
    if is_typed_date(series) or date_formats(series):  # refused later, for what they are
        return None
    found = shares(series, decimal, thousands) if is_texts(series) else {}
    numbers = max(found.values(), default=0.0 if is_texts(series) else 1.0) > 0.5
    if numbers and is_texts(series):
        codes, _ = pd.factorize(without_words_for_none(series))
    many = FEW_NUMBERS if numbers else MOST_CLASSES
    distinct = np.unique(codes[train & (codes >= 0)])
    return codes if len(distinct) <= many else None


def joint_codes(frame: pd.DataFrame) -> np.ndarray:
    """The combinations of values of some columns as integers (N,)."""
    codes: np.ndarray = (
        frame.apply(to_words)
        .groupby(list(frame.columns), dropna=False, sort=True)
        .ngroup()
        .to_numpy()
    )
    return codes
