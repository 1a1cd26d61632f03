"""Folds: every row tests once, in the run whose fold it is in, and no fold depends on targets.

At random, the fold of a row is a function of the seed and of the row's position in the file alone,
as a random split is. So runs with other targets or other inputs have the same folds, and rows that
are appended to a file do not move the others.
"""

import hashlib

import numpy as np
import torch

from src.data.tables.splits import SIDE, split_at_random, split_by_groups, split_by_strata
from src.errors import UserError
from src.rng import GAMMA, hash_integers, make_generator


def check_fold(folds: int | None, fold: int) -> None:
    """Checks the number of folds, and the fold that tests, before any row is read.

    Raises:
        UserError: There are fewer than two folds, or none of that number.
    """
    if folds is None:
        if fold:
            raise UserError(
                f"data.fold is {fold}, but data.folds says into how many folds the rows are cut: "
                "set it, too, such as 5"
            )
        return
    if folds < 2:
        raise UserError(f"data.folds is {folds}; it must be at least 2, or null for one split")
    if not 0 <= fold < folds:
        raise UserError(
            f"data.fold is {fold}; the {folds} folds of data.folds count from 0 to {folds - 1}"
        )


# -- the fold of each row --------------------------------------------------------------------------
def deal_at_random(rows: int, folds: int, seed: int) -> np.ndarray:
    """Deals rows to folds at random: of each ``folds`` rows in a row, every fold has one.

    Args:
        rows: Number of rows.
        folds: Number of folds.
        seed: Seed of the draw.

    Returns:
        (rows,) numbers of folds, from 0.

    Raises:
        UserError: There are fewer rows than folds.
    """
    if rows < folds:
        raise UserError(f"data.folds is {folds}, but there are {rows} rows: each fold needs one")
    blocks = -(-rows // folds)

    # a permutation of each block
    keys = hash_integers(torch.arange(blocks * folds) * GAMMA + seed).view(blocks, folds)
    return keys.argsort(1).argsort(1).flatten()[:rows].numpy()


def deal_by_strata(strata: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deals rows to folds at random, each stratum in proportion, to within one row.

    Args:
        strata: (rows,) integers.
        folds: Number of folds.
        seed: Seed of the draw.

    Returns:
        (rows,) numbers of folds, from 0.

    Raises:
        UserError: A stratum has fewer rows than there are folds.
    """
    rarest = int(np.unique(strata, return_counts=True)[1].min())
    if rarest < folds:
        raise UserError(
            f"data.folds is {folds}, but the rarest values of data.stratify have {rarest} rows: "
            f"each fold needs one; {name_most_folds(rarest)} or leave data.stratify out"
        )
    order = np.random.default_rng(seed).permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]

    # in turn, from one stratum into the next: so the folds are of one size as well
    dealt = np.empty(len(strata), dtype=np.int64)
    dealt[order] = np.arange(len(strata)) % folds
    return dealt


def deal_by_groups(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deals whole groups to folds at random, each to the fold that has the fewest rows so far.

    So no group is in two folds, and folds differ by no more rows than the largest group has. The
    order of rows does not count.

    Args:
        groups: (rows,) names of groups.
        folds: Number of folds.
        seed: Seed of the draw.

    Returns:
        (rows,) numbers of folds, from 0.

    Raises:
        UserError: There are fewer groups than folds.
    """
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < folds:
        raise UserError(
            f"data.folds is {folds}, but data.group has {len(names)} groups: each fold needs one; "
            f"{name_most_folds(len(names))}"
        )

    # a group's place in the order depends on its name alone, not on the other groups
    draws = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    dealt = np.empty(len(names), dtype=np.int64)
    rows_of_fold = np.zeros(folds, dtype=np.int64)
    for group in sorted(range(len(names)), key=draws.__getitem__):
        dealt[group] = rows_of_fold.argmin()
        rows_of_fold[dealt[group]] += sizes[group]
    return dealt[codes]


def name_most_folds(most: int) -> str:
    """Says how many folds there can be; "" where there can be none."""
    return f"use {most} folds at most" if most > 1 else "use no folds"


# -- the split of one fold -------------------------------------------------------------------------
def split_by_fold(
    dealt: np.ndarray,
    fold: int,
    val: float,
    seed: int,
    groups: np.ndarray | None = None,
    strata: np.ndarray | None = None,
) -> np.ndarray:
    """Splits rows so that one fold tests; rows that validate are drawn from the other folds.

    Each fold draws them anew.

    Args:
        dealt: (rows,) the fold of each row.
        fold: The fold that tests.
        val: Share of all rows that validates.
        seed: Seed of the draw.
        groups: (rows,) groups that must stay on one side.
        strata: (rows,) integers whose shares all sides keep.

    Returns:
        (rows,) of 'train', 'val' or 'test'.
    """
    side = np.full(len(dealt), "test", dtype=SIDE)
    rest = np.flatnonzero(dealt != fold)
    share = val * len(dealt) / len(rest)
    drawn = make_generator(seed, fold).initial_seed()
    if groups is not None:
        side[rest] = split_by_groups(groups[rest], share, 0.0, drawn)
    elif strata is not None:
        side[rest] = split_by_strata(strata[rest], share, 0.0, drawn)
    else:
        side[rest] = split_at_random(len(rest), share, 0.0, drawn)
    return side
