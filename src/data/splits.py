"""Which rows train, validate and test: at random, by group, or by a column.

At random a row's side is a function of the seed and of its place in the file alone. So runs with
other targets or other inputs are tested on the same rows, and rows that are appended to a file
leave the sides of the others as they are.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from src.errors import UserError
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
BLOCK = 20  # rows that are dealt out together, so that the shares are right in each part of a file


def random_split(rows: int, val: float, test: float, seed: int) -> np.ndarray:
    """Deals rows out at random, each block of 20 rows in proportion.

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
    keys = hash_integers(torch.arange(blocks * size) * GAMMA + seed).view(blocks, size)
    rank = keys.argsort(1).argsort(1).numpy()  # a permutation of each block
    # how many rows of all blocks up to this one test, and how many test or validate: shares that
    # are no whole rows add up
    ends = np.arange(blocks + 1) * size
    tests = np.diff(np.floor(ends * test + 0.5))
    held_out = np.diff(np.floor(ends * (test + val) + 0.5))
    side = np.where(
        rank < tests[:, None], "test", np.where(rank < held_out[:, None], "val", "train")
    )
    return side.ravel()[:rows].astype("<U5")


def stratified_split(strata: np.ndarray, val: float, test: float, seed: int) -> np.ndarray:
    """Deals rows out at random, each stratum in proportion.

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
    side = np.full(len(strata), "train", dtype="<U5")
    tested = systematic(len(order), test, rng.random())
    side[order[tested]] = "test"
    rest = order[~tested]
    side[rest[systematic(len(rest), val / (1 - test), rng.random())]] = "val"
    return side


def systematic(count: int, share: float, offset: float) -> np.ndarray:
    """Picks ``share`` of ``count`` positions, evenly spread: bool (count,)."""
    steps = np.floor(np.arange(count + 1) * share + offset)
    return np.diff(steps) > 0


def group_split(groups: np.ndarray, val: float, test: float, seed: int) -> np.ndarray:
    """Deals whole groups out at random, so that no group is on two sides, until the shares of rows are reached.

    Where groups are few or large, the smallest one stands for a side that would have none.
    """
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    draws = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    order = np.array(sorted(range(len(names)), key=draws.__getitem__))
    filled = np.cumsum(sizes[order]) - sizes[order] / 2  # a group goes where its middle row falls
    side = np.where(
        filled < test * len(groups),
        "test",
        np.where(filled < (test + val) * len(groups), "val", "train"),
    )
    for name, share in (("train", 1.0), ("test", test), ("val", val)):
        several = [other for other in ("train", "test", "val") if (side == other).sum() > 1]
        if share and name not in side and several:
            there = np.flatnonzero(side == several[0])
            side[there[sizes[order][there].argmin()]] = name
    return side[np.argsort(order)][codes]


def column_split(values: Sequence[object]) -> np.ndarray:
    """Reads the split from a column that says train, val or test.

    Raises:
        UserError: A value is no split's name.
    """
    split = np.empty(len(values), dtype="<U5")
    for row, value in enumerate(values):
        name = NAMES.get(str(value).strip().lower())
        if name is None:
            raise UserError(f"row {row + 1} holds '{value}' where train, val or test is expected")
        split[row] = name
    return split


def keep_rare_classes(
    side: np.ndarray, labels: Sequence[np.ndarray], groups: np.ndarray | None = None
) -> np.ndarray:
    """Lets the rows train whose class no other row would train.

    Args:
        side: (rows,) of 'train', 'val' or 'test'; changed in place.
        labels: (rows,) integers for each target with classes, -1 where the label is missing.
        groups: (rows,) the groups that must not be on two sides.

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
