"""Figures of a report: the maths behind them, their words, and the files that they leave."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from src.analysis.charts.bounds import find_bounds
from src.analysis.charts.chart import VARIABLES, Chart, embed_svg, save_chart, to_svg
from src.analysis.charts.curves import align_curves, draw_curves
from src.analysis.charts.delta import draw_deltas
from src.analysis.charts.drawing import draw_charts, find_weights
from src.analysis.charts.labels import clean_name, join_names, spread_labels
from src.analysis.charts.pareto import draw_pareto, find_front
from src.analysis.charts.ranks import draw_ranks
from src.analysis.charts.tasks import draw_tasks
from src.analysis.comparison import compare_rows
from src.analysis.results import StudyResults
from tests.analysis.made_study import make_study

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>$x^2$</script>&任务\x1b"


def make_deltas(**means: tuple[float, float, float]) -> pd.DataFrame:
    lines = []
    for row, values in means.items():
        lines += [(row, convention, *values) for convention in ("tasks", "metrics")]
    return pd.DataFrame(lines, columns=["row", "convention", "mean", "low", "high"])


# -- labels ----------------------------------------------------------------------------------------
@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=12))
def test_labels_are_moved_as_an_isotonic_regression_moves_them(places):
    gap = 0.06
    moved = spread_labels(np.array(places), gap)
    order = np.argsort(places, kind="stable")
    assert (np.diff(moved[order]) >= gap - 1e-9).all()
    assert moved.min() >= -1e-9
    assert moved.max() <= 1 + 1e-9

    offsets = gap * np.arange(len(places))
    reference = IsotonicRegression(y_min=0, y_max=1 - offsets[-1])
    wanted = np.array(places)[order] - offsets
    fitted = reference.fit_transform(np.arange(len(places)), wanted) + offsets
    np.testing.assert_allclose(moved[order], fitted, atol=1e-9)


def test_labels_without_room_keep_their_distance():
    moved = spread_labels(np.full(30, 0.5), 0.1)
    np.testing.assert_allclose(moved, 0.1 * np.arange(30))


def test_names_are_cleaned_and_joined():
    assert clean_name("a\n b\t\x00c") == "a b \N{REPLACEMENT CHARACTER}c"
    assert clean_name("x" * 40) == "x" * 27 + "…"
    assert join_names(["a"]) == "a"
    assert join_names(["a", "b", "c"]) == "a, b and c"
    assert join_names(list("abcdef"), 2) == "a, b and 4 more"


# -- maths of the figures --------------------------------------------------------------------------
points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


@given(points, st.sampled_from([(1, 1), (1, -1), (-1, 1), (-1, -1)]))
def test_the_front_has_the_points_that_none_beats(found, signs):
    front = find_front(np.array(found, dtype=float), signs)
    signed = [(signs[0] * x, signs[1] * y) for x, y in found]
    for (x, y), is_on_front in zip(signed, front, strict=True):
        beaten = any(a >= x and b >= y and (a, b) != (x, y) for a, b in signed)
        assert is_on_front != beaten


def test_the_range_of_an_axis_ignores_rows_far_away():
    mean = np.array([0.95, 0.94, 0.96, 0.95, 0.1])
    low, high = mean - 0.01, mean + 0.01
    left, right = find_bounds(mean, low, high)
    assert 0.92 < left < 0.93
    assert 0.97 < right < 0.98

    # rows that do not set the range never stretch it, close or not
    left, right = find_bounds(mean, low, high, np.array([True, False, False, False, False]))
    assert left == pytest.approx(0.94 - 0.001)
    assert right == pytest.approx(0.96 + 0.001)
    assert find_bounds(np.array([np.nan]), np.array([np.nan]), np.array([np.nan])) == (0, 1)
    nothing = np.array([np.nan, np.nan])
    assert find_bounds(np.array([2.0, 2.0]), nothing, nothing) == pytest.approx((1.9, 2.1))


def test_curves_are_aligned_at_steps_that_all_replicates_have_passed():
    curves = pd.DataFrame(
        [
            *[(0, 10, 1.0), (0, 20, 2.0), (0, 30, 3.0), (0, 40, 4.0)],
            *[(1, 15, 0.0), (1, 25, 10.0), (1, 35, 20.0)],
            (1, 45, np.nan),
        ],
        columns=["seed", "step", "score"],
    ).assign(fold=pd.NA)
    steps, values = align_curves(curves)
    assert steps.tolist() == [15, 20, 25, 30, 35]
    np.testing.assert_allclose(values, [[1.5, 2, 2.5, 3, 3.5], [0, 5, 10, 15, 20]])
    steps, values = align_curves(curves.iloc[:0])
    assert not len(steps)


def test_fixed_weights_are_found_among_candidates():
    settings = ['{"model.weights.a": 1, "lr": 0.1}', '{"lr": 0.1}']
    lines = []
    for trial, text in zip("st", settings, strict=True):
        lines += [(trial, text, "a", 0.5, False), (trial, text, "b", 0.7, trial == "s")]
    frame = pd.DataFrame(lines, columns=["trial", "settings", "task", "value", "chosen"])
    assert find_weights(frame, ("a", "b")).to_numpy().tolist() == [[0.5, 0.7, True]]
    assert find_weights(frame, ("a", "c")).empty


# -- words -----------------------------------------------------------------------------------------
def test_deltas_are_told_in_words():
    nan = float("nan")
    deltas = make_deltas(
        good=(2.0, 1.0, 3.0), even=(0.1, -1.0, 1.2), bad=(-1.0, -1.5, -0.5), once=(0.5, nan, nan)
    )
    chart = draw_deltas(deltas)
    assert chart.finding == (
        "Of 4 rows, good changes most for the better: +2.00 % [+1.00, +3.00] over tasks. "
        "The whole interval is above zero for good. "
        "The whole interval is below zero for bad. The interval includes zero for even."
    ).replace("-", "\N{MINUS SIGN}")
    assert draw_deltas(deltas.iloc[:0]).figure is None


def test_references_do_not_stretch_the_figure_of_deltas():
    deltas = make_deltas(a=(1.0, 0.5, 1.5), b=(-1.0, -1.5, -0.5), constant=(-80.0, -81.0, -79.0))
    chart = draw_deltas(deltas, ["constant"])
    assert chart.figure is not None
    assert chart.figure.axes[0].get_xlim() == pytest.approx((-1.65, 1.65))
    assert "arrowhead" in chart.caption
    assert "arrowhead" not in draw_deltas(deltas[deltas["row"] != "constant"]).caption


def test_the_best_row_of_each_task_is_told_in_words():
    lines = [
        ("a", "t", "acc", 0.9),
        ("b", "t", "acc", 0.8),
        ("a", "u", "rmse", 2),
        ("b", "u", "rmse", 1),
    ]
    summary = pd.DataFrame(lines, columns=["row", "task", "metric", "mean"])
    summary = summary.assign(low=np.nan, high=np.nan)
    chart = draw_tasks(summary, {"t": "acc", "u": "rmse"}, {"t": 1, "u": -1}, "a")
    assert chart.finding == "The best mean is that of a on t (0.9) and b on u (1)."
    assert "Bars begin at the mean of a." in chart.caption
    unknown = summary.assign(mean=np.nan)
    assert draw_tasks(unknown, {"t": "acc"}, {"t": 1}, None).figure is None


def test_of_many_tasks_the_figure_says_which_it_has():
    names = [f"t{i}" for i in range(15)]
    summary = pd.DataFrame([("a", name, "acc", 0.9, 0.8, 1.0) for name in names])
    summary.columns = pd.Index(["row", "task", "metric", "mean", "low", "high"])
    chart = draw_tasks(summary, dict.fromkeys(names, "acc"), dict.fromkeys(names, 1), None)
    assert chart.figure is not None
    assert sum(axes.get_visible() for axes in chart.figure.axes) == 12
    assert "the first 12 of 15 tasks" in chart.caption


def test_ranks_and_groups_are_told_in_words():
    ranks = pd.DataFrame({"row": ["c", "a", "b"], "rank": [2.9, 1.2, 1.9]})
    chart = draw_ranks(ranks, [["a", "b"]], "Why.")
    assert chart.finding == (
        "a has the best mean rank, 1.20; c has the worst, 2.90. "
        "No significant difference from a to b (2 rows)."
    )
    assert draw_ranks(ranks, [], "Why.").finding.endswith("No two rows are joined.")
    assert draw_ranks(ranks.iloc[:1], [], "Why.").figure is None


def test_the_front_is_told_in_words():
    means = pd.DataFrame({"row": list("abc"), "x": [0.9, 0.8, 0.7], "y": [1.0, 0.5, 2.0]})
    for axis in "xy":
        means = means.assign(**{f"{axis}_{end}": np.nan for end in ("low", "high", "val")})
    candidates = pd.DataFrame({"x": [0.6, 0.7], "y": [1.0, 2.0], "chosen": [True, False]})
    chart = draw_pareto(candidates, means, ("t", "u"), (1, -1))
    assert chart.finding == (
        "On test rows no row is better in both tasks than a and b. "
        "Of 2 fixed weights, 2 are on the validation front."
    )
    alone = draw_pareto(candidates.iloc[:0], means, ("t", "u"), (1, -1))
    assert alone.figure is not None
    assert len(alone.figure.axes) == 1


def test_curves_are_told_in_words():
    lines = []
    for row, best in (("a", 0.8), ("b", 0.9)):
        for seed in (0, 1):
            lines += [(row, seed, "", step, best - 1 / step) for step in (10, 20)]
    curves = pd.DataFrame(lines, columns=["row", "seed", "task", "step", "score"])
    chart = draw_curves(curves.assign(fold=pd.NA), ["a", "b", "c"], ["t"])
    assert chart.finding == "At the end of its curve, the score over all tasks is: b 0.85, a 0.75."
    assert draw_curves(curves.iloc[:0], ["a"], []).figure is None


# -- files -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def charts(tmp_path_factory) -> dict[str, Chart]:
    results = StudyResults(make_study(tmp_path_factory.mktemp("root") / "study"))
    record = results.record
    shown = [(task, its["monitor"]) for task, its in record["tasks"].items()]
    comparison = compare_rows(results, results.list_values(), shown, ("digit", "odd"))
    return {chart.name: chart for chart in draw_charts(comparison)}


@pytest.fixture(scope="module")
def svgs(charts) -> dict[str, str]:
    return {name: to_svg(chart) for name, chart in charts.items()}


def test_a_study_has_all_figures(charts):
    assert list(charts) == ["delta", "tasks", "pareto", "curves", "ranks"]
    assert all(chart.figure is not None for chart in charts.values())


def test_an_svg_has_its_words_and_names_of_its_own(charts, svgs):
    names: set[str] = set()
    for chart in charts.values():
        svg = svgs[chart.name]
        root = ET.fromstring(svg)
        title, desc = root[0], root[1]
        assert (title.tag, title.text) == (f"{SVG}title", chart.title)
        assert (desc.tag, desc.text) == (f"{SVG}desc", chart.finding)
        assert root.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"
        own = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(own) == len(set(own))
        assert not names & set(own)
        names |= set(own)

        # what is referred to is there, and nothing lies elsewhere
        used = re.findall(r'href="([^"]*)"|url\(([^)]*)\)', svg)
        assert used
        assert {"".join(one).removeprefix("#") for one in used} <= set(own)


def test_colours_of_a_page_are_its_own(svgs):
    for svg in svgs.values():
        embedded = embed_svg(svg)
        assert "var(--ink)" in embedded
        for color in VARIABLES:
            assert color not in re.findall(r"#[0-9a-f]{6}", embedded)
        # without it Matplotlib draws in black, which a dark page would hide
        assert "#000000" not in embedded


def test_the_same_figure_makes_the_same_files(charts, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_chart(charts["ranks"], tmp_path / name)
    for ending, start in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        one = (tmp_path / "one" / f"ranks.{ending}").read_bytes()
        assert one == (tmp_path / "two" / f"ranks.{ending}").read_bytes()
        assert one.startswith(start)


def test_hostile_names_are_text(tmp_path: Path):
    chart = draw_deltas(make_deltas(**{HOSTILE: (1.0, 0.5, 1.5)}))
    root = ET.fromstring(save_chart(chart, tmp_path))
    assert not list(root.iter(f"{SVG}script"))
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert clean_name(HOSTILE) in texts
    assert (tmp_path / "delta.png").read_bytes().startswith(b"\x89PNG")
