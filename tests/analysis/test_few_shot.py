"""Statistics over draws: means, intervals, paired tests with Holm's correction, words."""

import numpy as np
import pytest
from scipy import stats

from src.analysis.charts.few_shot import draw_few_shots
from src.analysis.few_shot import (
    FewShots,
    Fit,
    choose_method,
    compare_methods,
    describe_intervals,
    list_values,
    tell_best,
    tell_transfer,
)

RNG = np.random.default_rng(2)
DRAWS = 8
# scratch is far behind at 10, and level with the others at 5
SCORES = {
    (method, shots): RNG.normal(mean, 0.02, DRAWS)
    for (method, shots), mean in {
        ("probe", 5): 0.5,
        ("head", 5): 0.5,
        ("scratch", 5): 0.5,
        ("probe", 10): 0.8,
        ("head", 10): 0.8,
        ("scratch", 10): 0.3,
    }.items()
}


def make_fits(without: tuple[str, int, int] | None = None) -> list[Fit]:
    fits: list[Fit] = []
    for (method, shots), values in SCORES.items():
        for draw, value in enumerate(values):
            score = None if (method, shots, draw) == without else float(value)
            fits.append(
                {
                    "method": method,
                    "shots": shots,
                    "draw": draw,
                    "val": {"score": None if score is None else 1 - score},
                    "test": {"score": score, "loss": 2.0},
                    "seconds": 0.1,
                    "chosen": {},
                }
            )
    return fits


def compare(fits: list[Fit], stage: str = "test") -> FewShots:
    return compare_methods(fits, "x", "AUROC", ["probe", "head", "scratch"], stage)


def test_intervals_are_students_over_draws() -> None:
    found = compare(make_fits())
    for _, line in found.summary.iterrows():
        sample = SCORES[line["method"], line["shots"]]
        low, high = stats.t.interval(0.95, DRAWS - 1, sample.mean(), stats.sem(sample))
        np.testing.assert_allclose(
            line[["mean", "low", "high"]].astype(float),
            [
                sample.mean(),
                low,
                high,
            ],
        )
        assert line["n"] == DRAWS


def test_pairs_are_tested_by_draw_with_holms_correction_at_each_k() -> None:
    found = compare(make_fits())
    for k in (5, 10):
        at_k = found.tests[found.tests["shots"] == k]
        raw = []
        for one, other in (("probe", "head"), ("probe", "scratch"), ("head", "scratch")):
            line = at_k[(at_k["method"] == one) & (at_k["other"] == other)].iloc[0]
            p = stats.ttest_rel(SCORES[one, k], SCORES[other, k]).pvalue
            assert line["p"] == pytest.approx(p)
            assert line["difference"] == pytest.approx((SCORES[one, k] - SCORES[other, k]).mean())
            raw.append(p)
        order = np.argsort(raw)
        holm = np.empty(3)
        holm[order] = np.minimum(1, np.maximum.accumulate(np.sort(raw) * [3, 2, 1]))
        np.testing.assert_allclose(at_k["p_holm"].to_numpy(float), holm)


def test_words_say_what_differs_and_what_does_not() -> None:
    found = compare(make_fits())
    at_5, at_10 = tell_best(found)
    assert "better than" not in at_5
    assert "no significant difference from" in at_5
    best = "probe" if SCORES["probe", 10].mean() > SCORES["head", 10].mean() else "head"
    other = {"probe": "head", "head": "probe"}[best]
    assert at_10.startswith(f"10 examples: {best} 0.")
    assert at_10.endswith(f"; better than scratch; no significant difference from {other}")
    assert tell_transfer(found) == ["significantly better than scratch: probe at 10; head at 10"]


def test_two_draws_give_no_test() -> None:
    fits = [fit for fit in make_fits() if fit["draw"] < 2]
    found = compare(fits)
    assert set(found.tests["verdict"]) == {"too few draws"}
    assert "too few draws to test it against" in tell_best(found)[0]
    assert "one draw gives no interval" in describe_intervals(1, 10)
    assert "30 training rows" in describe_intervals(4, 30)


def test_a_method_is_chosen_on_validation_rows() -> None:
    # validation turns the order of the test around
    fits = make_fits()
    assert choose_method(fits, ["probe", "head", "scratch"], 10) == "scratch"
    assert choose_method(fits, ["probe", "head"], 10) in ("probe", "head")


def test_a_method_that_diverged_in_a_draw_is_not_chosen() -> None:
    fits = make_fits(without=("scratch", 10, 3))
    assert choose_method(fits, ["probe", "head", "scratch"], 10) != "scratch"
    found = compare(fits)
    line = found.summary[(found.summary["method"] == "scratch") & (found.summary["shots"] == 10)]
    assert int(line["n"].iloc[0]) == DRAWS - 1


def test_every_number_is_listed() -> None:
    values = list_values(make_fits())
    assert len(values) == len(SCORES) * DRAWS * 3
    chosen = values[(values["stage"] == "val") & (values["method"] == "probe")]
    assert set(chosen["metric"]) == {"score"}


def test_picture_has_a_line_for_each_method_and_its_finding() -> None:
    found = compare(make_fits())
    chart = draw_few_shots(found)
    assert chart.figure is not None
    axes = chart.figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["probe", "head", "scratch"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "10"]
    means = found.summary[found.summary["method"] == "probe"]["mean"].to_numpy(float)
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata(), dtype=float), means)
    assert "10 examples" in chart.finding


def test_nothing_to_draw_is_said() -> None:
    fits = make_fits()
    for fit in fits:
        fit["test"] = {"score": None}
    assert draw_few_shots(compare(fits)).figure is None
