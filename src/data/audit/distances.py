"""Distances between the values of a column in two splits, and how large chance makes them."""

from math import log, sqrt

import numpy as np

CHANCE = 1e-4  # probability that a column of one distribution is taken for two


def measure_numbers(train: np.ndarray, other: np.ndarray, tests: int = 1) -> tuple[float, float]:
    """Measures the largest distance between two cumulative distributions (Kolmogorov-Smirnov).

    Args:
        train: (N,) numbers without NaN.
        other: (M,) numbers without NaN.
        tests: Number of columns that are compared, which makes a chance distance likelier.

    Returns:
        The distance, from 0 to 1; and the largest one that chance explains.
    """
    n, m = len(train), len(other)
    if not n or not m:
        return 0.0, 1.0
    values = np.unique(np.concatenate([train, other]))
    below_train = np.searchsorted(np.sort(train), values, side="right") / n
    below_other = np.searchsorted(np.sort(other), values, side="right") / m
    distance = float(np.abs(below_train - below_other).max())

    # P(D > d) <= 2 exp(-2 d^2 nm / (n + m)); Massart 1990
    limit = sqrt(log(2 * tests / CHANCE) / 2 * (1 / n + 1 / m))
    return distance, limit


def measure_classes(train: np.ndarray, other: np.ndarray, tests: int = 1) -> tuple[float, float]:
    """Measures half the sum of the differences of shares (total variation).

    Args:
        train: (N,) whole numbers from 0.
        other: (M,) whole numbers from 0.
        tests: Number of columns that are compared.

    Returns:
        The distance, from 0 to 1; and the largest one that chance explains.
    """
    n, m = len(train), len(other)
    if not n or not m:
        return 0.0, 1.0
    size = int(max(train.max(), other.max())) + 1
    p = np.bincount(train, minlength=size) / n
    q = np.bincount(other, minlength=size) / m
    distance = float(np.abs(p - q).sum() / 2)

    # the mean distance of two samples of one distribution, and McDiarmid's bound around it
    pooled = (p * n + q * m) / (n + m)
    mean = float(np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)).sum()) / 2
    return distance, mean + sqrt(log(tests / CHANCE) / 2 * (1 / n + 1 / m))
