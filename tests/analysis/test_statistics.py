"""Statistics against scipy, statsmodels, published examples, and simulations with a known truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.datasets import make_moons
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.svm import SVC
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from src.analysis.statistics import (
    adjust_holm,
    check_packages,
    compute_p_of_mean,
    compute_p_of_ranks,
    estimate_mean,
    group_ranks,
    measure_critical_difference,
    rank_rows,
)
from src.errors import UserError

# AUC of C4.5, with m, with cf, with both, on 14 data sets: table 6 of Demsar (2006), which rounds
# the third value of the last line but one to 0.975 and ranks it before the fourth
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
samples = st.lists(st.floats(-100, 100), min_size=3, max_size=12)


# -- means -----------------------------------------------------------------------------------------
def test_an_interval_is_that_of_statsmodels():
    sample = np.random.default_rng(0).normal(3, 2, 7)
    low, high = DescrStatsW(sample).tconfint_mean(0.05)
    found = estimate_mean(sample)
    assert found == pytest.approx((sample.mean(), low, high, 7), rel=1e-12)


def test_undefined_values_are_left_out():
    assert estimate_mean([1.0, np.nan, 3.0]) == estimate_mean([1.0, 3.0])
    assert estimate_mean([1.0, np.nan, 3.0]).n == 2


def test_one_value_has_no_interval_and_none_has_no_mean():
    one = estimate_mean([0.5])
    assert one.mean == 0.5
    assert one.n == 1
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(estimate_mean([np.nan]).mean)
    assert estimate_mean([]).n == 0


def test_equal_values_have_an_interval_of_no_width():
    assert estimate_mean([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5, 3)


@given(samples)
def test_p_is_that_of_the_paired_t_test(differences):
    ours = compute_p_of_mean(differences)
    if np.ptp(differences) < 1e-6:
        return
    theirs = stats.ttest_rel(differences, np.zeros(len(differences))).pvalue
    assert ours == pytest.approx(theirs, rel=1e-9)


@given(samples, st.floats(0.05, 1))
def test_overlap_widens_intervals_and_raises_p(differences, overlap):
    if np.ptp(differences) < 1e-6:
        return
    plain = estimate_mean(differences)
    corrected = estimate_mean(differences, overlap)
    n = len(differences)
    ratio = np.sqrt((1 / n + overlap) * n)
    assert corrected.high - corrected.mean == pytest.approx(ratio * (plain.high - plain.mean))
    assert compute_p_of_mean(differences, overlap) >= compute_p_of_mean(differences)


def test_the_corrected_resampled_t_test_by_its_formula():
    """Nadeau and Bengio (2003), section 3: t = mean / sqrt((1/J + n2/n1) s^2), J - 1 degrees."""
    differences = np.array([0.02, 0.05, -0.01, 0.03, 0.04, 0.02, 0.00, 0.06, 0.01, 0.03])
    # by hand: s^2 = 0.00425 / 9, times 0.1 + 0.1111, gives an error of 0.0099845
    t = 0.025 / 0.0099845
    assert compute_p_of_mean(differences, 1 / 9) == pytest.approx(2 * stats.t.sf(t, 9), rel=1e-4)


def test_the_corrected_resampled_t_test_of_a_published_example():
    """scikit-learn's guide "Statistical comparison of models using grid search".

    It compares kernels on 10 x 10 folds, and prints t = 0.750 and p = 0.227 on one side.
    """
    x, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    cv = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel, random_state=0), x, y, cv=cv, scoring="roc_auc")
        for kernel in ("rbf", "linear")
    )
    p = compute_p_of_mean(rbf - linear, 10 / 90)
    assert p / 2 == pytest.approx(0.227, abs=0.0006)
    assert stats.t.isf(p / 2, 99) == pytest.approx(0.750, abs=0.0006)
    # the guide's naive test, t = 2.611, is far too sure of itself
    assert stats.t.isf(compute_p_of_mean(rbf - linear) / 2, 99) == pytest.approx(2.611, abs=0.001)


def test_an_interval_excludes_zero_where_p_is_below_the_level():
    rng = np.random.default_rng(1)
    for _ in range(50):
        sample = rng.normal(0.5, 1, 8)
        estimate = estimate_mean(sample, 0.25)
        excludes = estimate.low > 0 or estimate.high < 0
        assert excludes == (compute_p_of_mean(sample, 0.25) < 0.05)


def test_too_few_or_unrepeated_differences_are_not_tested():
    assert np.isnan(compute_p_of_mean([1.0, 2.0]))
    assert np.isnan(compute_p_of_mean([0.3, 0.3, 0.3]))
    assert compute_p_of_mean([0.0, 0.0, 0.0]) == 1.0


# -- many tests ------------------------------------------------------------------------------------
@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_holm_is_that_of_statsmodels(p):
    theirs = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(adjust_holm(p), theirs, rtol=1e-12)


def test_holm_by_hand_and_without_what_was_not_tested():
    np.testing.assert_allclose(adjust_holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    found = adjust_holm([0.01, np.nan, 0.04, 0.03])
    np.testing.assert_allclose(found, [0.03, np.nan, 0.06, 0.06])
    assert np.isnan(adjust_holm([np.nan])).all()
    assert len(adjust_holm([])) == 0


# -- ranks -----------------------------------------------------------------------------------------
def test_ranks_and_friedman_of_the_published_example():
    ranks = rank_rows(DEMSAR)
    np.testing.assert_allclose(ranks.mean(0), [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    # the paper has no correction for ties: chi2 = 12 N / (k (k+1)) (sum R^2 - k (k+1)^2 / 4)
    chi2 = 12 * 14 / 20 * (np.sum(ranks.mean(0) ** 2) - 4 * 25 / 4)
    assert chi2 == pytest.approx(9.28, abs=0.01)
    ties = 1 - sum(np.sum(c**3 - c) for c in map(count_ties, DEMSAR)) / (14 * 60)
    assert compute_p_of_ranks(DEMSAR) == pytest.approx(stats.chi2.sf(chi2 / ties, 3), rel=1e-9)


def count_ties(block):
    return np.unique(block, return_counts=True)[1]


def test_the_critical_difference_of_the_published_example():
    # q of table 5 of the paper: 2.569 for 4 classifiers at 0.05, 2.291 at 0.10
    assert measure_critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert measure_critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)
    for rows, q in ((2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)):
        expected = q * np.sqrt(rows * (rows + 1) / (6 * 20))
        assert measure_critical_difference(rows, 20) == pytest.approx(expected, rel=1e-3)


def test_groups_are_the_longest_runs_within_the_difference():
    ranks = {"d": 4.0, "a": 1.0, "b": 1.5, "c": 2.4, "e": 9.0}
    assert group_ranks(ranks, 1.0) == [["a", "b"], ["b", "c"]]
    assert group_ranks(ranks, 1.7) == [["a", "b", "c"], ["c", "d"]]
    assert group_ranks(ranks, 0.1) == []
    assert group_ranks(ranks, 10.0) == [["a", "b", "c", "d", "e"]]


def test_rows_that_all_tie_are_alike():
    assert compute_p_of_ranks(np.ones((5, 3))) == 1.0
    np.testing.assert_array_equal(rank_rows(np.ones((2, 3))), np.full((2, 3), 2.0))


# -- known truths ----------------------------------------------------------------------------------
def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(1000):
        found = estimate_mean(rng.normal(1, 3, 5))
        hits += found.low <= 1 <= found.high
    assert abs(hits - 950) <= 3 * np.sqrt(1000 * 0.95 * 0.05)


def test_a_gain_is_found_as_often_as_theory_says():
    gain = 1.3  # standard deviations of a difference
    power = TTestPower().power(gain, nobs=6, alpha=0.05, alternative="two-sided")
    rng = np.random.default_rng(3)
    found = sum(compute_p_of_mean(rng.normal(gain, 1, 6)) < 0.05 for _ in range(1000))
    assert 0.5 < power < 0.95
    assert abs(found - 1000 * power) <= 3 * np.sqrt(1000 * power * (1 - power))


def test_folds_are_tested_at_the_nominal_rate_or_below():
    """Folds of one data set, whose training rows overlap, give correlated differences.

    With correlation rho between folds, E[s^2] = (1 - rho) v, and the variance of the mean is
    (1/n + rho (n-1)/n) v. Nadeau and Bengio take rho = n_test / (n_test + n_train), 1/n for n
    folds: then 1/n + 1/(n-1) is the right factor.
    """
    folds = 5
    rng = np.random.default_rng(4)
    wrong = {0.0: 0, 1 / 4: 0}
    for _ in range(1000):
        common = rng.normal(0, np.sqrt(1 / folds))
        differences = common + rng.normal(0, np.sqrt(1 - 1 / folds), folds)
        for overlap in wrong:
            wrong[overlap] += compute_p_of_mean(differences, overlap) < 0.05
    noise = 3 * np.sqrt(1000 * 0.05 * 0.95)
    assert wrong[1 / 4] <= 50 + noise
    assert wrong[1 / 4] >= 50 - noise
    # without the correction, noise is "significant" far too often
    assert wrong[0.0] > 50 + noise


def test_a_missing_package_is_one_line(monkeypatch):
    check_packages()
    monkeypatch.setattr("src.analysis.statistics.find_spec", lambda name: None)
    with pytest.raises(UserError, match="reports of studies need scipy: pip install scipy"):
        check_packages()
