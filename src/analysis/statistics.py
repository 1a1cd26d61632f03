"""Statistics of replicates: intervals and paired tests of means, Holm's correction, mean ranks.

A sample holds one value for each unit of repetition. Without folds a unit is a seed. With folds it
is a fold, over whose seeds the values were averaged first: the training rows of folds overlap, so
that the variance of their mean is more than s^2 / n. Nadeau and Bengio (2003,
https://doi.org/10.1023/A:1024068626366) correct it to

    (1/n + n_test/n_train) s^2

with n folds, s^2 the variance over them, and n_test/n_train the rows that test a fold relative to
the rows that it learns from. Here that ratio is called the overlap; it is 0 without folds.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.errors import UserError

LEVEL = 0.05  # of tests; intervals cover 1 - LEVEL
FEWEST = 3  # pairs that a test takes
Floats = NDArray[np.float64]


def check_packages() -> None:
    """Refuses to begin a report that could not be computed.

    Raises:
        UserError: scipy is missing.
    """
    if find_spec("scipy") is None:
        raise UserError("reports of studies need scipy: pip install scipy")


class Estimate(NamedTuple):
    """A mean with its interval.

    Attributes:
        mean: The mean; NaN of nothing.
        low: Lower end of the interval; NaN where fewer than two values give none.
        high: Upper end.
        n: Values behind it.
    """

    mean: float
    low: float
    high: float
    n: int


def estimate_mean(
    sample: Sequence[float] | Floats, overlap: float = 0.0, level: float = LEVEL
) -> Estimate:
    """Returns the mean of a sample and its Student t interval, which covers 1 - level.

    Args:
        sample: (n,) values; NaN is no value.
        overlap: n_test/n_train of folds; 0 where units are independent.
        level: The share of intervals that miss the true mean.
    """
    from scipy import stats

    values = drop_undefined(sample)
    n = len(values)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    if n == 1:
        return Estimate(mean, np.nan, np.nan, n)
    error = measure_error(values, overlap)
    if error == 0:
        return Estimate(mean, mean, mean, n)
    low, high = stats.t.interval(1 - level, n - 1, loc=mean, scale=error)
    return Estimate(mean, float(low), float(high), n)


def compute_p_of_mean(sample: Sequence[float] | Floats, overlap: float = 0.0) -> float:
    """Returns the two-sided p of Student's t test that the mean of paired differences is zero.

    Args:
        sample: (n,) differences; NaN is no difference.
        overlap: n_test/n_train of folds; 0 where units are independent.

    Returns:
        p: 1 where all differences are zero; NaN where there are fewer than ``FEWEST``, or where all
        are one and the same number, so that nothing was repeated.
    """
    from scipy import stats

    values = drop_undefined(sample)
    n = len(values)
    if n < FEWEST:
        return np.nan
    if not values.any():
        return 1.0
    error = measure_error(values, overlap)
    if error <= 1e-12 * np.abs(values).max():
        return np.nan
    return float(2 * stats.t.sf(abs(values.mean()) / error, n - 1))


def measure_error(values: Floats, overlap: float) -> float:
    """Returns the standard error of the mean, sqrt((1/n + overlap) s^2); NaN for one value."""
    if len(values) < 2:
        return np.nan
    return float(np.sqrt((1 / len(values) + overlap) * values.var(ddof=1)))


def drop_undefined(sample: Sequence[float] | Floats) -> Floats:
    """Returns the values of a sample that are numbers."""
    values = np.asarray(sample, dtype=np.float64)
    return values[~np.isnan(values)]


def adjust_holm(p: Sequence[float] | Floats) -> Floats:
    """Returns p-values with the correction of Holm (1979) for as many tests as there are.

    The i-th smallest of m values, from 0, becomes the largest of (m - k) p_k over k <= i, at most
    1. A NaN is no test, and stays.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN sorts last
    factors = len(order) - np.arange(len(order))
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * values[order]))
    return adjusted


def rank_rows(scores: Floats) -> Floats:
    """Returns ranks within blocks, 1 for the best; ties share the mean of their ranks.

    Args:
        scores: (blocks, rows), higher is better.
    """
    from scipy import stats

    ranks: Floats = stats.rankdata(-scores, axis=1)
    return ranks


def compute_p_of_ranks(scores: Floats) -> float:
    """Returns the p of Friedman's test that no row is better than another.

    Args:
        scores: (blocks, rows), at least 3 rows; NaN has no place here.

    Returns:
        p: 1 where all rows tie in all blocks.
    """
    from scipy import stats

    if (scores == scores[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*scores.T).pvalue)


def measure_critical_difference(rows: int, blocks: int, level: float = LEVEL) -> float:
    """Returns Nemenyi's critical difference of mean ranks, q sqrt(k (k + 1) / (6 N)).

    q is the upper quantile of the studentised range for k rows and infinite degrees of freedom,
    divided by sqrt(2); N is the number of blocks (Demsar 2006).
    """
    from scipy import stats

    q = stats.studentized_range.ppf(1 - level, rows, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(rows * (rows + 1) / (6 * blocks)))


def group_ranks(ranks: dict[str, float], difference: float) -> list[list[str]]:
    """Returns the longest runs of rows whose mean ranks lie within a difference.

    Args:
        ranks: {row: mean rank}, in any order.
        difference: Rows this far apart differ.
    """
    names = sorted(ranks, key=lambda name: ranks[name])
    groups: list[list[str]] = []
    for first, name in enumerate(names):
        group = [other for other in names[first:] if ranks[other] - ranks[name] < difference]
        inside_another = groups and group[-1] == groups[-1][-1]
        if len(group) > 1 and not inside_another:
            groups.append(group)
    return groups
