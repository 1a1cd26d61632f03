"""Groups of rows: by the words of a column, or by the ranges of its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from math import isfinite, prod

import numpy as np

from src.errors import UserError

MISSING = "missing"  # the group of rows without a value
FEW = 12  # values of numbers that are groups as they are
MOST = 60  # groups of one column
MOST_LISTED = 240  # intersections that are listed although no row is in them
BINS = 4


@dataclass(frozen=True)
class Group:
    """Rows that have the same values in some columns.

    Attributes:
        values: {column: value}; empty for all rows.
        rows: (N,) the places of its rows.
    """

    values: Mapping[str, str]
    rows: np.ndarray

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that tell the group."""
        return tuple(self.values)

    @property
    def name(self) -> str:
        """The values, with commas between them."""
        return name_group(self.values)


def name_group(values: Mapping[str, str]) -> str:
    """Returns the name of a group from its {column: value}."""
    return ", ".join(values.values()) or "all rows"


def name_rows(columns: Sequence[str], labels: Sequence[Sequence[str]]) -> list[str]:
    """Returns the name of the group of each row, from its groups by each column."""
    rows = zip(*labels, strict=True)
    return [name_group(dict(zip(columns, values, strict=True))) for values in rows]


def find_edges(words: Sequence[str | None], bins: int | None = None) -> tuple[float, ...]:
    """Returns where a column of numbers is cut, so that each range has about as many rows.

    Args:
        words: The column; None where missing.
        bins: How many ranges; None: four, where there are more than ``FEW`` values.

    Returns:
        The largest number of each range but the last; () for a column of words, or of few numbers.
    """
    numbers = read_numbers(words)
    if numbers is None:
        return ()
    values = np.unique(numbers[~np.isnan(numbers)])
    if len(values) <= (FEW if bins is None else bins):
        return ()
    count = BINS if bins is None else bins
    shares = np.arange(1, count) / count
    # a value of the column itself, so that a name says which side it is on
    edges = np.nanquantile(numbers, shares, method="inverted_cdf")
    return tuple(float(edge) for edge in np.unique(edges) if edge < values[-1])


def read_numbers(words: Sequence[str | None]) -> np.ndarray | None:
    """Returns words as numbers (N,), NaN where missing; None where one of them is no number."""
    try:
        numbers = [float("nan") if word is None else float(word) for word in words]
    except ValueError:
        return None
    if not all(isfinite(number) for word, number in zip(words, numbers, strict=True) if word):
        return None
    return np.array(numbers)


def label_rows(words: Sequence[str | None], edges: Sequence[float], column: str) -> list[str]:
    """Returns the group of each row by one column.

    Args:
        words: The column; None where missing.
        edges: Where its numbers are cut, see :func:`find_edges`; () takes words as they are.
        column: Its name, for messages.

    Raises:
        UserError: It is cut as numbers, and a row has none.
    """
    if not edges:
        return [MISSING if word is None else word for word in words]
    names = name_ranges(edges)
    labels = []
    for row, word in enumerate(words):
        if word is None:
            labels.append(MISSING)
            continue
        numbers = read_numbers([word])
        if numbers is None:
            raise UserError(
                f"row {row + 1}: {column} is '{word}', where the groups are ranges of numbers"
            )
        labels.append(names[int(np.searchsorted(np.array(edges), numbers[0]))])
    return labels


def name_ranges(edges: Sequence[float]) -> list[str]:
    """Returns the names of ranges: 'at most 28', 'over 28 to 37', 'over 37'."""
    shown = [f"{edge:.6g}" for edge in edges]
    middle = [f"over {low} to {high}" for low, high in pairwise(shown)]
    return [f"at most {shown[0]}", *middle, f"over {shown[-1]}"]


def order_values(labels: Sequence[str], edges: Sequence[float]) -> list[str]:
    """Returns the groups of a column: ranges as numbers rise, words by name, missing ones last."""
    found = set(labels)
    ordered = name_ranges(edges) if edges else sorted(found - {MISSING})
    return [*ordered, MISSING] if MISSING in found else ordered


def list_groups(
    labels: Mapping[str, Sequence[str]], values: Mapping[str, Sequence[str]]
) -> list[Group]:
    """Returns all rows, then the groups by each column, by each pair of them, and by all of them.

    An intersection without a row is a group, too, unless there are very many of them.

    Args:
        labels: {column: the group of each row}.
        values: {column: its groups, in the order that they are shown in}.
    """
    arrays = {column: np.array(own, dtype=object) for column, own in labels.items()}
    count = len(next(iter(arrays.values())))
    groups = [Group({}, np.arange(count))]
    for columns in list_subsets(list(labels)):
        lists_all = prod(len(values[column]) for column in columns) <= MOST_LISTED
        for chosen in product(*(values[column] for column in columns)):
            inside = np.ones(count, dtype=bool)
            for column, value in zip(columns, chosen, strict=True):
                inside &= arrays[column] == value
            if lists_all or inside.any():
                groups.append(
                    Group(dict(zip(columns, chosen, strict=True)), np.flatnonzero(inside))
                )
    return groups


def list_subsets(columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns each column by itself, each pair, and all together."""
    sizes = sorted({1, min(2, len(columns)), len(columns)})
    return [subset for size in sizes for subset in combinations(columns, size)]


def check_values(column: str, values: Sequence[str]) -> None:
    """Refuses a column that is no column of groups.

    Raises:
        UserError: It has one value, or very many.
    """
    if len(values) < 2:
        raise UserError(
            f"--groups names '{column}', which is '{values[0]}' in each row: there is nothing to "
            "compare"
        )
    if len(values) > MOST:
        raise UserError(
            f"--groups names '{column}', which has {len(values)} values; at most {MOST} groups are "
            "compared"
        )
