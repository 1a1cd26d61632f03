"""Distances between the values of a column in two samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, nan, sqrt

import numpy as np
import torch

from src.analysis.shift.values import ColumnValues, merge_rare

LEVEL = 0.05
TERMS = 100  # of the series of Kolmogorov's distribution


@dataclass(frozen=True)
class Shift:
    """How far a column of some rows is from that of the training rows.

    Attributes:
        column: The column.
        kind: number or category.
        distance: The Kolmogorov-Smirnov distance of numbers, the total variation of categories:
            both from 0, for the same distribution, to 1.
        mean_difference: The difference of the means of numbers, in standard deviations (the root
            of the mean of both variances); NaN for categories.
        missing_before: The share of missing values in the training rows.
        missing_after: Their share in the other rows.
        unseen: The share of the other rows whose word training did not have.
        p: The probability of such a distance, or of such a difference of missing values, by chance
            alone; NaN where values are not independent, as tokens of a text are not.
        words: What has changed, in the data's own words.
    """

    column: str
    kind: str
    distance: float
    mean_difference: float
    missing_before: float
    missing_after: float
    unseen: float
    p: float
    words: str

    @property
    def is_share(self) -> bool:
        """Whether missing values are of interest."""
        return self.missing_before > 0 or self.missing_after > 0


def compare_columns(before: Sequence[ColumnValues], after: Sequence[ColumnValues]) -> list[Shift]:
    """Returns the shift of each column, the largest distance first.

    Args:
        before: The columns of training rows.
        after: The same columns of other rows.
    """
    found = []
    for ours, theirs in zip(before, after, strict=True):
        compare = compare_categories if ours.is_category else compare_numbers
        found.append(compare(ours, theirs))
    return sorted(found, key=lambda one: -one.distance)


def find_beyond_chance(shifts: Sequence[Shift]) -> list[Shift]:
    """Returns the shifts that chance alone explains with less than 5 %, all columns together.

    (Bonferroni: the level of each column is 5 % by the number of columns.)
    """
    tested = [one for one in shifts if not np.isnan(one.p)]
    return [one for one in tested if one.p * len(tested) < LEVEL]


def compare_numbers(before: ColumnValues, after: ColumnValues) -> Shift:
    """Compares numbers by their means, their distributions, and the share of missing ones."""
    x, y = (values[~np.isnan(values)] for values in (before.values, after.values))
    missing = tuple(float(np.isnan(one.values).mean()) for one in (before, after))
    distance, difference, p = 0.0, 0.0, 1.0
    words = "all missing"
    if len(x) and len(y):
        distance = measure_ks(x, y)
        p = find_ks_probability(distance, len(x), len(y))
        spread = sqrt((x.var() + y.var()) / 2)
        difference = float(y.mean() - x.mean()) / spread if spread else 0.0
        if not spread and x[0] != y[0]:
            difference = float("inf") if y[0] > x[0] else float("-inf")
        centre, scale = before.unit
        words = f"mean {x.mean() * scale + centre:.4g} -> {y.mean() * scale + centre:.4g}"
    if any(missing):
        counts = [count_missing(one.values) for one in (before, after)]
        p = min(1.0, 2 * min(p, find_table_probability(*counts)))
    return Shift(before.name, "number", distance, difference, missing[0], missing[1], 0.0, p, words)


def compare_categories(before: ColumnValues, after: ColumnValues) -> Shift:
    """Compares categories by the total variation of their shares, rare words taken together."""
    code = before.missing_code
    missing = [0.0, 0.0]
    if code is not None:
        missing = [float((one.values == code).mean()) for one in (before, after)]
    unseen = float((after.values == 0).mean()) if len(after.values) else 0.0
    x, y = merge_words(before, after)
    size = int(max(x.max(initial=0), y.max(initial=0))) + 1
    counts = [np.bincount(one, minlength=size).astype(np.float64) for one in (x, y)]
    shares = [one / max(1.0, one.sum()) for one in counts]
    gaps = shares[1] - shares[0]
    place = int(np.abs(gaps).argmax())
    words = f"{name_code(before, place)} {shares[0][place]:.3f} -> {shares[1][place]:.3f}"
    p = find_table_probability(*counts) if before.by_row else nan
    distance = float(np.abs(gaps).sum() / 2)
    return Shift(before.name, "category", distance, nan, missing[0], missing[1], unseen, p, words)


def merge_words(before: ColumnValues, after: ColumnValues) -> tuple[np.ndarray, np.ndarray]:
    """Returns the codes of two samples with the vocabulary of the first, rare words as one."""
    y = after.values
    if after.words != before.words:
        # predictions have a vocabulary of their own in each sample
        places = {word: code for code, word in enumerate(before.words, 1)}
        further = [word for word in after.words if word not in places]
        places |= {word: len(places) + code for code, word in enumerate(further, 1)}
        y = np.array([0, *(places[word] for word in after.words)])[y]
    return merge_rare(before.values, y)


def name_code(values: ColumnValues, code: int) -> str:
    """Returns the word of a code."""
    if code == 0:
        return "rare and new words"
    if code > len(values.words):
        return f"code {code}" if not values.words else "a word that was not there"
    word = values.words[code - 1]
    return "missing" if word is None else f"'{word}'"


def count_missing(values: np.ndarray) -> np.ndarray:
    """Returns the counts of known and of missing numbers."""
    missing = np.isnan(values).sum()
    return np.array([len(values) - missing, missing], dtype=np.float64)


def measure_ks(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the largest gap between the distribution functions of two samples."""
    x, y = np.sort(x), np.sort(y)
    every = np.concatenate([x, y])
    below_x = np.searchsorted(x, every, side="right") / len(x)
    below_y = np.searchsorted(y, every, side="right") / len(y)
    return float(np.abs(below_x - below_y).max())


def find_ks_probability(distance: float, n: int, m: int) -> float:
    """Returns the probability of at least this distance between samples of one distribution.

    (Stephens, "Use of the Kolmogorov-Smirnov, Cramer-von Mises and related statistics without
    extensive tables", 1970. Ties make it too large, so that it is on the safe side.)
    """
    root = sqrt(n * m / (n + m))
    x = (root + 0.12 + 0.11 / root) * distance
    if x < 0.2:
        return 1.0
    terms = [(-1) ** (k - 1) * exp(-2 * (k * x) ** 2) for k in range(1, TERMS)]
    return min(1.0, max(0.0, 2 * sum(terms)))


def find_table_probability(before: np.ndarray, after: np.ndarray) -> float:
    """Returns the probability of counts at least as unlike, by the chi-squared test.

    Args:
        before: (K,) counts of the categories in one sample.
        after: (K,) counts in the other.
    """
    total = before + after
    known = total > 0
    n, m = before.sum(), after.sum()
    if known.sum() < 2 or not n or not m:
        return 1.0
    a, b = before[known], after[known]
    gaps = sqrt(m / n) * a - sqrt(n / m) * b
    statistic = float((gaps**2 / total[known]).sum())
    half = torch.tensor([(known.sum() - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
