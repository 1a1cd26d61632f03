"""Near copies across splits: rows that are almost, but not quite, rows of the training split."""

import numpy as np
import torch
from torch import Tensor

NEAR = 0.02  # root mean square distance of a near copy, in standard deviations of the columns
GAP = 3.0  # between near copies and unrelated rows lie few distances, up to this many times NEAR
FEWEST = 3  # near copies that are worth a word
LEAST_APART = 0.5  # share of the rows that must be far from all training rows
PART = 256  # rows that are compared with all others at once


def find_near_copies(
    train: Tensor, check: Tensor, kinds: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Finds rows of another split that are nearly a training row.

    Distances of unrelated rows have no gap: in d dimensions there are 3^d - 1 times as many of them
    between r and 3 r as below r. Copies with a little noise have one. Rows at distance 0 are left
    to the search for exact copies.

    Args:
        train: (N, D) numbers of training rows.
        check: (M, D) numbers of the rows to check.
        kinds: (N,) and (M,) integers that near copies have in common, such as hashes of categories.

    Returns:
        The places (K,) of near copies among the rows to check; none where there is no gap.
    """
    none = np.zeros(0, dtype=np.int64)
    if not len(train) or not len(check) or not train.shape[1]:
        return none
    spread = train.std(0, correction=0)
    varies = spread > 0
    if not varies.any():
        return none
    scale = spread[varies]
    middle = train[:, varies].mean(0)
    distances = measure_nearest(
        (train[:, varies] - middle) / scale, (check[:, varies] - middle) / scale, kinds
    ).numpy()

    # rounding makes equal rows up to 1e-3 apart in single precision
    is_near = (distances > 2e-3) & (distances < NEAR)
    between = int(((distances >= NEAR) & (distances < GAP * NEAR)).sum())
    near = int(is_near.sum())
    far = float((distances >= GAP * NEAR).mean())
    if near < FEWEST or 3 * between > near or far < LEAST_APART:
        return none
    return np.flatnonzero(is_near)


def measure_nearest(
    train: Tensor, check: Tensor, kinds: tuple[np.ndarray, np.ndarray] | None
) -> Tensor:
    """Returns the root mean square distance of each row (M,) to the nearest training row."""
    size = (train**2).sum(1)
    nearest = []
    for start in range(0, len(check), PART):
        part = check[start : start + PART]
        squares = size + (part**2).sum(1, keepdim=True) - 2 * part @ train.T
        if kinds is not None:
            ours = torch.from_numpy(kinds[1][start : start + PART].astype(np.int64))
            theirs = torch.from_numpy(kinds[0].astype(np.int64))
            squares = squares.masked_fill(ours[:, None] != theirs, float("inf"))
        nearest.append(squares.amin(1))
    return (torch.cat(nearest).clamp(min=0) / train.shape[1]).sqrt()
