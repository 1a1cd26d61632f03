"""Ways to decide which rows train, validate and test: at random, by group, or by a column.

At random, the side of a row is a function of the seed and of the row's position in the file alone.
So runs with other targets or other inputs are tested on the same rows, and rows that are appended
to a file do not move the others.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from src.data.tables.numbers import BadValue
from src.rng import GAMMA, hash_integers

NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
BLOCK = 20  # rows that are split together, so that the shares are right in each section of a file
SIDE = "<U5"  # the type of an array of 'train', 'val' and 'test'


def split_at_random(rows: int, val: float, test: float, seed: int) -> np.ndarray:
    """Splits rows at random, each block of 20 rows in proportion.

    Args:
        rows: Number of rows.
        val: Share that validates.
        test: Share that tests.
        seed: Seed of the draw.

    Returns:
        (rows,) of 'train', 'val' or 'test'.
    """
    size = min(BLOCK, rows)
    blocks = -(-rows // size)

    # a permutation of each block
    keys = hash_integers(torch.arange(blocks * size) * GAMMA + seed).view(blocks, size)
    rank = keys.argsort(1).argsort(1).numpy()

    # Shares of a block need not be whole rows. How many rows test is rounded over all blocks up to
    # each, so that fractions of rows add up; so is how many test or validate.
    ends = np.arange(blocks + 1) * size
    tests_so_far = np.floor(ends * test + 0.5)
    held_out_so_far = np.floor(ends * (test + val) + 0.5)

    # The two may be rounded apart in one block and together in the next. A row that validates
    # stays one, or a small share of them would grow by each such block.
    tests = np.diff(tests_so_far)
    vals = np.diff(np.maximum.accumulate(held_out_so_far - tests_so_far))
    not_test = np.where(rank < (tests + vals)[:, None], "val", "train")
    side = np.where(rank < tests[:, None], "test", not_test)
    return side.ravel()[:rows].astype(SIDE)


def split_by_strata(strata: np.ndarray, val: float, test: float, seed: int) -> np.ndarray:
    """Splits rows at random, each stratum in proportion.

    Args:
        strata: (rows,) integers whose shares all sides keep.
        val: Share that validates.
        test: Share that tests.
        seed: Seed of the draw.

    Returns:
        (rows,) of 'train', 'val' or 'test'.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]

    # evenly spaced picks from rows in the order of their strata
    side = np.full(len(strata), "train", dtype=SIDE)
    tests = pick_evenly(len(order), test, rng.random())
    side[order[tests]] = "test"
    rest = order[~tests]
    side[rest[pick_evenly(len(rest), val / (1 - test), rng.random())]] = "val"
    return side


def pick_evenly(count: int, share: float, offset: float) -> np.ndarray:
    """Picks ``share`` of ``count`` positions, evenly spaced: bool (count,)."""
    steps = np.floor(np.arange(count + 1) * share + offset)
    return np.diff(steps) > 0


def split_by_groups(groups: np.ndarray, val: float, test: float, seed: int) -> np.ndarray:
    """Splits whole groups at random, until the shares of rows are reached.

    No group is on two sides. If groups are few or large, a side may have none; it then gets the
    smallest group of a side that has several.

    Args:
        groups: (rows,) names of groups.
        val: Share of the rows that validates.
        test: Share of the rows that tests.
        seed: Seed of the draw.

    Returns:
        (rows,) of 'train', 'val' or 'test'.
    """
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)

    # a group's place in the order depends on its name alone, not on the other groups
    draws = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    order = np.array(sorted(range(len(names)), key=draws.__getitem__))

    # a group goes to the side on which its middle row falls
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    not_test = np.where(middle < (test + val) * len(groups), "val", "train")
    side = np.where(middle < test * len(groups), "test", not_test)

    for name, share in (("train", 1.0), ("test", test), ("val", val)):
        several = [other for other in ("train", "test", "val") if (side == other).sum() > 1]
        if share and name not in side and several:
            there = np.flatnonzero(side == several[0])
            side[there[sizes[order][there].argmin()]] = name
    return side[np.argsort(order)][codes]


def split_by_column(values: Sequence[object]) -> np.ndarray:
    """Reads the split from a column that says train, val or test.

    Raises:
        BadValue: A value names no split.
    """
    split = np.empty(len(values), dtype=SIDE)
    for row, value in enumerate(values):
        name = NAMES.get(str(value).strip().lower())
        if name is None:
            raise BadValue(row, f"holds '{value}' where train, val or test is expected")
        split[row] = name
    return split


def keep_rare_classes(
    side: np.ndarray, labels: Sequence[np.ndarray], groups: np.ndarray | None = None
) -> np.ndarray:
    """Moves rows to train if no training row has their class.

    Args:
        side: (rows,) of 'train', 'val' or 'test'; changed in place.
        labels: (rows,) integers for each target with classes, -1 where the label is missing.
        groups: (rows,) groups that must stay on one side.

    Returns:
        The rows that were moved: bool (rows,).
    """
    before = side.copy()
    for codes in labels:
        trained = np.unique(codes[side == "train"])
        lacking = (codes >= 0) & ~np.isin(codes, trained)
        if groups is not None:
            lacking = np.isin(groups, groups[lacking])
        side[lacking] = "train"
    return side != before
