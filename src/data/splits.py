"""Which rows train, validate and test: at random, by group, or by a column."""

from collections.abc import Sequence

import numpy as np

NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


def systematic(count: int, share: float, offset: float) -> np.ndarray:
    """Picks ``share`` of ``count`` positions, evenly spread: bool (count,)."""
    steps = np.floor(np.arange(count + 1) * share + offset)
    return np.diff(steps) > 0


def random_split(
    rows: int, val: float, test: float, seed: int, strata: np.ndarray | None = None, keep: np.ndarray | None = None
) -> np.ndarray:
    """Deals rows out at random, each stratum in proportion.

    Args:
        rows: Number of rows.
        val: Share that validates.
        test: Share that tests.
        seed: Seed of the draw.
        strata: (rows,) labels whose shares all splits keep.
        keep: (rows,) bool, rows that must train: the few of a rare class.

    Returns:
        (rows,) of 'train', 'val' or 'test'.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    free = order[~keep[order]] if keep is not None else order
    split = np.full(rows, "train", dtype="<U5")
    tested = systematic(len(free), test, rng.random())
    split[free[tested]] = "test"
    rest = free[~tested]
    split[rest[systematic(len(rest), val / (1 - test) if test < 1 else 0.0, rng.random())]] = "val"
    return split


def group_split(groups: np.ndarray, val: float, test: float, seed: int) -> np.ndarray:
    """Deals whole groups out at random, so that no group is on two sides, until the shares of rows are reached."""
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    filled = np.cumsum(sizes[order]) - sizes[order] / 2  # a group goes where its middle row falls
    side = np.where(filled < test * len(groups), "test", np.where(filled < (test + val) * len(groups), "val", "train"))
    return side[np.argsort(order)][np.searchsorted(names, groups)]


def column_split(values: Sequence[object]) -> np.ndarray:
    """Reads the split from a column that says train, val or test.

    Raises:
        ValueError: A value is no split's name.
    """
    split = np.empty(len(values), dtype="<U5")
    for row, value in enumerate(values):
        name = NAMES.get(str(value).strip().lower())
        if name is None:
            raise ValueError(f"row {row + 1} holds '{value}' where train, val or test is expected")
        split[row] = name
    return split


def joint_strata(columns: Sequence[np.ndarray], most: int) -> np.ndarray | None:
    """Numbers the combinations of several label columns, taking in one after the other while there are at most ``most``."""
    joint: np.ndarray | None = None
    for column in columns:
        codes = np.unique(column, return_inverse=True)[1]
        wider = codes if joint is None else np.unique(joint * (codes.max() + 1) + codes, return_inverse=True)[1]
        if wider.max() + 1 <= most:
            joint = wider
    return joint
