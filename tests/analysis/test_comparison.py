"""Tables of a report from arrays whose truth is known: deltas, ranks, tests, diagrams."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from src.analysis.comparison import (
    compare_with_baseline,
    find_critical_difference,
    list_deltas,
    rank_by_task,
    summarise,
)
from src.analysis.scores import Scores

COLUMNS = [("digit", "accuracy"), ("digit", "f1"), ("ink", "rmse")]
SIGNS = [1.0, 1.0, -1.0]
RECORD = {
    "tasks": {
        "digit": {"monitor": "accuracy", "metrics": {"accuracy": 1, "f1": 1}},
        "ink": {"monitor": "rmse", "metrics": {"rmse": -1}},
    }
}


def make_scores(values, rows=None, folds=None, overlap=0.0, references=(), **changed):
    """Scores of an array (rows, replicates, columns); single-task first, then the baseline."""
    values = np.asarray(values, dtype=float)
    rows = rows or ["single", "tuned", *(f"method {k}" for k in range(2, len(values)))]
    seeds = range(values.shape[1] // len(folds) if folds else values.shape[1])
    settings = {
        "rows": rows,
        "references": np.array([row in references for row in rows]),
        "replicates": [(seed, fold) for fold in folds or [None] for seed in seeds],
        "columns": COLUMNS[: values.shape[2]],
        "signs": np.array(SIGNS[: values.shape[2]]),
        "values": values,
        "repeats": np.zeros(values.shape, dtype=bool),
        "overlap": overlap,
        "single": 0,
        "baseline": 1,
    }
    return Scores(**{**settings, **changed})


def draw(rng, rows, replicates, gains=(), spread=0.01):
    """Values with a mean of 1 in each column; gains are shares of it, by row."""
    values = 1 + spread * rng.normal(size=(rows, replicates, 3))
    for row, gain in enumerate(gains):
        values[row] += gain * np.array(SIGNS)
    return values


# -- delta -----------------------------------------------------------------------------------------
def test_delta_by_hand_in_both_conventions():
    single = [[0.80, 0.50, 2.0], [0.80, 0.70, 2.0]]
    method = [[0.84, 0.66, 1.8], [0.88, 0.72, 2.4]]
    # of the means 0.80, 0.60, 2.0: +5, +26.67, +10 and +10, +3.33, -20 percent
    frame = list_deltas(make_scores([single, single, method])).set_index(["row", "convention"])
    first, second = (5 + 80 / 3 + 10) / 3, (10 + 10 / 3 - 20) / 3
    assert frame.loc[("method 2", "metrics"), "mean"] == pytest.approx((first + second) / 2)
    first, second = ((5 + 80 / 3) / 2 + 10) / 2, ((10 + 10 / 3) / 2 - 20) / 2
    found = frame.loc[("method 2", "tasks")]
    assert found["mean"] == pytest.approx((first + second) / 2)
    half = stats.t.ppf(0.975, 1) * abs(first - second) / 2
    assert found["high"] - found["mean"] == pytest.approx(half)
    assert found["n"] == 2


def test_delta_of_the_means_is_the_mean_delta():
    scores = make_scores(draw(np.random.default_rng(0), 4, 6, spread=0.2))
    means = scores.values.mean(1)
    delta = (100 * np.array(SIGNS) * (means - means[0]) / np.abs(means[0])).mean(1)
    frame = list_deltas(scores)
    found = frame[frame["convention"] == "metrics"]["mean"]
    np.testing.assert_allclose(found, delta, atol=1e-10)


def test_delta_of_the_single_task_row_is_zero_without_an_interval():
    frame = list_deltas(make_scores(draw(np.random.default_rng(0), 3, 5))).set_index("row")
    assert (frame.loc["single", "mean"] == 0).all()
    assert frame.loc["single", ["low", "high"]].isna().all(axis=None)


def test_a_gain_counts_as_such_whatever_the_sign_of_the_metric():
    values = np.ones((3, 3, 3))
    values[2] = [1.1, 1.1, 0.9]
    frame = list_deltas(make_scores(values)).set_index(["row", "convention"])
    assert frame.loc[("method 2", "metrics"), "mean"] == pytest.approx(10)
    assert frame.loc[("method 2", "tasks"), "mean"] == pytest.approx(10)


def test_a_missing_replicate_leaves_its_pair_out():
    rng = np.random.default_rng(1)
    values = draw(rng, 3, 5)
    whole = make_scores(values)
    values = values.copy()
    values[2, 3] = np.nan
    part = make_scores(values)
    frame = list_deltas(part).set_index(["row", "convention"])
    assert frame.loc[("method 2", "tasks"), "n"] == 4
    kept = np.delete(whole.compare(2, 0), 3)
    assert frame.loc[("method 2", "tasks"), "mean"] == pytest.approx(kept.mean())


def test_one_metric_that_is_missing_leaves_the_replicate_out():
    """The mean of the others would be no match for that of other rows."""
    values = draw(np.random.default_rng(1), 3, 5)
    values[2, 0, 1] = np.nan
    scores = make_scores(values)
    assert np.isnan(scores.compare(2, 0)[0])
    assert list_deltas(scores).set_index(["row", "convention"]).loc[("method 2", "tasks"), "n"] == 4


def test_a_metric_that_is_zero_or_undefined_in_single_task_networks_does_not_count():
    values = draw(np.random.default_rng(2), 3, 5)
    values[0, :, 1] = 0
    values[1:, :, 1] = 7.0
    scores = make_scores(values)
    assert scores.counted.tolist() == [True, False, True]
    rest = make_scores(
        values[:, :, [0, 2]], columns=[COLUMNS[0], COLUMNS[2]], signs=np.array([1, -1])
    )
    np.testing.assert_allclose(scores.compare(2, 0), rest.compare(2, 0))


def test_without_single_task_networks_there_is_no_delta_but_a_test():
    values = draw(np.random.default_rng(3), 4, 6, gains=(0, 0, 0.05))
    scores = make_scores(values, single=None)
    assert len(list_deltas(scores)) == 0
    frame = compare_with_baseline(scores).set_index("row")
    assert frame.loc["method 2", "verdict"] == "better"
    base = values[1].mean(0)
    expected = (100 * np.array(SIGNS) * (values[2] - values[1]) / base).mean(0)
    tasks = (expected[:2].mean() + expected[2]) / 2
    assert frame.loc["method 2", "difference"] == pytest.approx(tasks)


def test_a_reference_stands_for_each_seed():
    values = draw(np.random.default_rng(4), 3, 5)
    values[2, 1:] = np.nan
    scores = make_scores(values, references=["method 2"])
    frame = list_deltas(scores).set_index(["row", "convention"])
    # its own value is one, that of single-task networks moves
    assert frame.loc[("method 2", "tasks"), "n"] == 5
    summary = summarise(scores).set_index(["row", "metric"])
    assert summary.loc[("method 2", "rmse"), "n"] == 1
    assert np.isnan(summary.loc[("method 2", "rmse"), "low"])
    assert np.isnan(rank_by_task(scores, RECORD)["rank"].iloc[2])
    assert "method 2" not in set(compare_with_baseline(scores)["row"])


def test_a_run_that_serves_several_seeds_counts_once():
    values = draw(np.random.default_rng(4), 3, 4)
    values[2] = values[2, 0]
    repeats = np.zeros(values.shape, dtype=bool)
    repeats[2, 1:] = True
    summary = summarise(make_scores(values, repeats=repeats)).set_index(["row", "metric"])
    assert summary.loc[("method 2", "f1"), "n"] == 1
    assert np.isnan(summary.loc[("method 2", "f1"), "high"])
    assert summary.loc[("tuned", "f1"), "n"] == 4


# -- folds -----------------------------------------------------------------------------------------
def test_seeds_of_a_fold_are_averaged_before_the_fold_aware_interval():
    values = draw(np.random.default_rng(5), 3, 8)
    scores = make_scores(values, folds=[0, 1, 2, 3], overlap=1 / 3)
    summary = summarise(scores).set_index(["row", "metric"])
    folds = values[2, :, 0].reshape(4, 2).mean(1)
    half = stats.t.ppf(0.975, 3) * np.sqrt((1 / 4 + 1 / 3) * folds.var(ddof=1))
    found = summary.loc[("method 2", "accuracy")]
    assert found["n"] == 4
    assert (found["mean"], found["high"]) == pytest.approx((folds.mean(), folds.mean() + half))

    test = compare_with_baseline(scores).set_index("row").loc["method 2"]
    differences = scores.compare(2, 1).reshape(4, 2).mean(1)
    t = differences.mean() / np.sqrt((1 / 4 + 1 / 3) * differences.var(ddof=1))
    assert test["p"] == pytest.approx(2 * stats.t.sf(abs(t), 3))


# -- ranks -----------------------------------------------------------------------------------------
def test_ranks_are_over_tasks_by_their_monitors():
    # accuracy and rmse rank; f1 would say otherwise
    values = [[[0.9, 0.1, 3.0]] * 2, [[0.8, 0.9, 1.0]] * 2, [[0.7, 0.9, 2.0]] * 2]
    frame = rank_by_task(make_scores(values), RECORD)
    assert frame["rank"].tolist() == [2.0, 1.5, 2.5]
    assert frame["n"].tolist() == [4, 4, 4]


def test_ranks_are_over_blocks_that_all_rows_have():
    values = draw(np.random.default_rng(6), 4, 3)
    values[1, 0] = np.nan
    values[3] = np.nan
    frame = rank_by_task(make_scores(values), RECORD)
    assert frame["n"].tolist() == [4, 4, 4, 0]
    assert np.isnan(frame["rank"].iloc[3])
    blocks = (values[:3, 1:] * np.array(SIGNS))[..., [0, 2]]
    expected = stats.rankdata(-blocks, axis=0).mean((1, 2))
    np.testing.assert_allclose(frame["rank"].iloc[:3], expected)


def test_a_row_without_common_blocks_leaves_the_ranking():
    values = draw(np.random.default_rng(6), 3, 3)
    values[1, 0] = np.nan
    values[2, 1:] = np.nan
    frame = rank_by_task(make_scores(values), RECORD)
    assert frame["n"].tolist() == [4, 4, 0]


# -- tests -----------------------------------------------------------------------------------------
def test_rows_are_tested_against_the_baseline_in_pairs():
    rng = np.random.default_rng(7)
    values = draw(rng, 5, 8, gains=(0, 0, 0.03, -0.03, 0))
    # seeds that are good or bad for all rows alike do not hide a difference
    values *= 1 + 0.2 * rng.normal(size=(1, 8, 1))
    scores = make_scores(values)
    frame = compare_with_baseline(scores).set_index("row")
    assert frame["verdict"].to_dict() == {
        "single": "no significant difference",
        "method 2": "better",
        "method 3": "worse",
        "method 4": "no significant difference",
    }
    delta = scores.percents["tasks"]
    theirs = stats.ttest_rel(delta[2], delta[1])
    interval = theirs.confidence_interval(0.95)
    found = frame.loc["method 2"]
    assert found["p"] == pytest.approx(theirs.pvalue)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert (frame["p_holm"] >= frame["p"]).all()


def test_the_improvement_that_is_tested_is_the_difference_of_deltas():
    scores = make_scores(draw(np.random.default_rng(8), 4, 5))
    deltas = list_deltas(scores)
    means = deltas[deltas["convention"] == "tasks"].set_index("row")["mean"]
    frame = compare_with_baseline(scores).set_index("row")
    expected = means["method 2"] - means["tuned"]
    assert frame.loc["method 2", "difference"] == pytest.approx(expected)


@pytest.mark.parametrize("replicates", [1, 2])
def test_few_replicates_are_not_tested(replicates):
    frame = compare_with_baseline(make_scores(draw(np.random.default_rng(9), 3, replicates)))
    assert set(frame["verdict"]) == {"too few replicates"}
    assert frame["p_holm"].isna().all()


def test_a_row_equal_to_the_baseline_does_not_differ():
    values = draw(np.random.default_rng(10), 3, 5)
    values[2] = values[1]
    frame = compare_with_baseline(make_scores(values)).set_index("row")
    assert frame.loc["method 2", "difference"] == 0
    assert frame.loc["method 2", "verdict"] == "no significant difference"


def test_noise_is_rarely_significant():
    """Of 500 studies in which all rows are alike, at most 5 % and sampling error name any row."""
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(500):
        scores = make_scores(draw(rng, 6, 5))
        wrong += compare_with_baseline(scores)["verdict"].isin(["better", "worse"]).any()
    assert wrong <= 500 * 0.05 + 3 * np.sqrt(500 * 0.05 * 0.95)
    # nor are the tests deaf
    assert wrong >= 5


def test_a_planted_gain_is_found_with_the_power_of_theory():
    """One row against the baseline, so that Holm's correction changes nothing."""
    replicates, spread, gain = 6, 0.01, 0.01
    # of each row: the mean of two tasks, one of them the mean of two metrics; two rows differ
    deviation = np.sqrt(2 * (spread**2 / 4 * (1 / 2 + 1)))
    power = TTestPower().power(gain / deviation, nobs=replicates, alpha=0.05)
    assert 0.5 < power < 0.9
    rng = np.random.default_rng(12)
    found = 0
    for _ in range(400):
        values = draw(rng, 2, replicates, gains=(0, gain), spread=spread)
        scores = make_scores(values, rows=["tuned", "method"], single=None, baseline=0)
        found += (compare_with_baseline(scores)["verdict"] == "better").any()
    assert abs(found - 400 * power) <= 3 * np.sqrt(400 * power * (1 - power))


# -- critical difference ---------------------------------------------------------------------------
def test_the_critical_difference_joins_rows_that_are_alike():
    values = draw(np.random.default_rng(13), 5, 10, gains=(0, 0, 0.5, 0.51, 0), spread=0.02)
    found = find_critical_difference(make_scores(values))
    assert found.n == 10
    assert found.p < 1e-4
    assert next(iter(found.ranks)) in ("method 2", "method 3")
    assert found.difference == pytest.approx(2.728 * np.sqrt(30 / 60), rel=1e-3)
    best = {"method 2", "method 3"}
    rest = {"single", "tuned", "method 4"}
    groups = [set(group) for group in found.groups]
    assert any(best <= group for group in groups)
    assert any(rest <= group for group in groups)
    assert "10 seeds" in found.meaning


def test_rows_of_noise_are_one_group():
    found = find_critical_difference(make_scores(draw(np.random.default_rng(14), 4, 6)))
    assert found.p > 0.05
    assert found.groups == [list(found.ranks)]


@pytest.mark.parametrize(("rows", "replicates"), [(2, 6), (5, 2)])
def test_there_is_no_diagram_of_few_rows_or_replicates(rows, replicates):
    values = draw(np.random.default_rng(15), rows, replicates)
    assert find_critical_difference(make_scores(values)) is None
