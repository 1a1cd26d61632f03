"""The two-sample test alarms at its nominal rate, and finds shifts that were planted."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from src.analysis.shift.two_sample import measure_area, tell_apart
from src.errors import UserError


def draw(rng, rows):
    """Three numbers that depend on each other, and words with many rare ones."""
    x = rng.normal(size=(rows, 3))
    x[:, 1] += x[:, 0]
    words = rng.geometric(0.3, size=(rows, 1)).clip(0, 20)
    return np.concatenate([x, words], 1)


KINDS = [False, False, False, True]


def test_rows_of_one_distribution_alarm_no_more_often_than_stated():
    rng = np.random.default_rng(0)
    alarms = 0
    for seed in range(40):
        alarms += tell_apart(draw(rng, 200), KINDS, 120, seed).alarms
    # of 40 draws with a chance of 5 %, more than 6 have a chance of 0.3 %
    assert alarms <= 6


def test_a_planted_shift_is_found_and_holds_its_interval():
    rng = np.random.default_rng(1)
    features = draw(rng, 1600)
    features[800:, 0] += 0.7
    found = tell_apart(features, KINDS, 800, 0)
    assert found.alarms
    assert found.p < 1e-6
    # of N(0, 1) and N(0.7, 1), with a second column whose correlation tells more
    assert found.low < found.auc < found.high
    assert 0.65 < found.auc < 0.8


def test_a_shift_of_dependence_alone_is_found():
    rng = np.random.default_rng(2)
    features = draw(rng, 2000)
    # the columns are as they were, one by one
    features[1000:, 1] = rng.permutation(features[1000:, 1])
    assert tell_apart(features, KINDS, 1000, 0).p < 1e-4


def test_missing_values_are_seen():
    rng = np.random.default_rng(3)
    features = draw(rng, 800)
    features[400:, 2][:100] = np.nan
    assert tell_apart(features, KINDS, 400, 0).alarms


def test_the_area_is_that_of_scikit_learn_and_its_variance_that_of_draws():
    rng = np.random.default_rng(4)
    areas, variances = [], []
    for _ in range(400):
        below, above = rng.normal(size=80).round(1), rng.normal(size=60).round(1) + 0.5
        area, variance = measure_area(below, above)
        areas.append(area)
        variances.append(variance)
    labels = np.repeat([0, 1], [80, 60])
    assert areas[-1] == pytest.approx(roc_auc_score(labels, np.concatenate([below, above])))
    assert np.mean(variances) == pytest.approx(np.var(areas), rel=0.2)


def test_few_rows_are_refused():
    with pytest.raises(UserError, match=r"needs 20 rows of each side; there are 100 .* and 5"):
        tell_apart(np.zeros((105, 1)), [False], 100, 0)
