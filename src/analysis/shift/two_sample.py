"""The classifier two-sample test: can a classifier tell training rows from others?"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

from src.errors import UserError
from src.rng import make_generator

FOLDS = 2
LEVEL = 0.05
SPREAD = 1.96  # standard deviations on each side of a 95 % interval
LEAST_ROWS = 20  # of each sample, so that each fold has rows of both


@dataclass(frozen=True)
class TwoSampleTest:
    """The result of the test.

    Attributes:
        auc: The area under the ROC curve of telling other rows from training rows, in rows that the
            classifier has not seen; a mean over both halves. 0.5 means that they are alike.
        low: The lower end of its 95 % interval.
        high: The upper end.
        p: The probability of at least this area where both samples are of one distribution.
        rows_before: The number of training rows.
        rows_after: The number of other rows.
    """

    auc: float
    low: float
    high: float
    p: float
    rows_before: int
    rows_after: int

    @property
    def alarms(self) -> bool:
        """Whether the samples differ by more than chance explains in 5 % of all cases."""
        return self.p < LEVEL


def tell_apart(
    features: np.ndarray, categories: Sequence[bool], rows_before: int, seed: int
) -> TwoSampleTest:
    """Tests whether two samples are of one distribution.

    (Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR 2017.) Boosted trees learn
    on half of both samples to tell them apart; the area under the ROC curve is measured on the
    other half, and then the halves change places. Under one distribution the area of a half has
    mean 1/2 and the variance (n + m + 1) / (12 n m) of the Mann-Whitney statistic, whatever the
    classifier has learnt. The two areas depend on each other: p is twice the smaller of their
    probabilities, and the interval is as wide as that of two areas that are wrong together. The
    mean over more folds would have a smaller interval, but of an unknown level.

    Args:
        features: (N + M, F) The training rows, and then the others; NaN where missing.
        categories: Whether each feature holds codes, from 0 to at most 250.
        rows_before: The number N of training rows.
        seed: Seed of the folds and of the classifier.

    Raises:
        UserError: scikit-learn is not installed, or rows are too few.
    """
    rows_after = len(features) - rows_before
    if min(rows_before, rows_after) < LEAST_ROWS:
        raise UserError(
            f"the two-sample test needs {LEAST_ROWS} rows of each side; there are {rows_before} "
            f"training rows and {rows_after} others"
        )
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ModuleNotFoundError:
        raise UserError(
            "the two-sample test needs scikit-learn: pip install scikit-learn"
        ) from None

    labels = np.arange(len(features)) >= rows_before
    folds = deal_folds(rows_before, rows_after, seed)
    areas, spreads, chances = [], [], []
    for fold in range(FOLDS):
        held = folds == fold
        model = HistGradientBoostingClassifier(
            max_iter=60,
            max_leaf_nodes=8,
            min_samples_leaf=max(2, min(20, len(features) // 20)),
            early_stopping=False,
            categorical_features=list(categories),
            random_state=seed,
        )
        model.fit(features[~held], labels[~held])
        scores = model.decision_function(features[held])
        area, variance = measure_area(scores[~labels[held]], scores[labels[held]])
        n, m = (~labels[held]).sum(), labels[held].sum()
        z = (area - 0.5) / sqrt((n + m + 1) / (12 * n * m))
        areas.append(area)
        spreads.append(sqrt(variance))
        chances.append(erfc(z / sqrt(2)) / 2)

    auc = float(np.mean(areas))
    half = SPREAD * float(np.mean(spreads))
    p = min(1.0, FOLDS * min(chances))
    return TwoSampleTest(auc, auc - half, auc + half, p, rows_before, rows_after)


def deal_folds(rows_before: int, rows_after: int, seed: int) -> np.ndarray:
    """Deals the rows of each sample to folds at random, evenly: (N + M,) numbers of folds."""
    import torch

    generator = make_generator(seed)
    dealt = []
    for count in (rows_before, rows_after):
        order = torch.randperm(count, generator=generator).numpy()
        dealt.append(order % FOLDS)
    return np.concatenate(dealt)


def measure_area(below: np.ndarray, above: np.ndarray) -> tuple[float, float]:
    """Returns the area under the ROC curve, and its variance.

    (DeLong et al., "Comparing the areas under two or more correlated receiver operating
    characteristic curves", Biometrics 1988.)

    Args:
        below: (N,) scores of the rows that should have low ones.
        above: (M,) scores of the others.
    """
    n, m = len(below), len(above)
    # of each row the share of the other sample that it beats, ties as halves
    beats = count_beaten(above, np.sort(below)) / n
    beaten = 1 - count_beaten(below, np.sort(above)) / m
    variance = 0.0
    if n > 1 and m > 1:
        variance = float(beats.var(ddof=1) / m + beaten.var(ddof=1) / n)
    return float(beats.mean()), variance


def count_beaten(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns how many of the sorted scores of others each score is above, ties as halves."""
    left = np.searchsorted(others, scores, side="left")
    right = np.searchsorted(others, scores, side="right")
    found: np.ndarray = (left + right) / 2
    return found
