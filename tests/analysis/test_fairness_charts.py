"""The pictures of groups, and of score against gap."""

import numpy as np
import pytest

from src.analysis.charts.chart import to_svg
from src.analysis.charts.groups import choose_panels, draw_groups
from src.analysis.charts.tradeoff import draw_tradeoff
from src.analysis.fairness.measures import GroupRow
from src.analysis.fairness.tradeoff import TradeoffRun, summarise_runs

ROWS = [
    GroupRow("income", "auroc", {}, 90, 0.8, 0.7, 0.9, None),
    GroupRow("income", "auroc", {"sex": "f"}, 50, 0.7, 0.6, 0.8, None),
    GroupRow("income", "auroc", {"sex": "m"}, 40, 0.9, 0.8, 0.95, None),
    GroupRow("income", "auroc", {"sex": "d"}, 4, None, None, None, "4 rows"),
    GroupRow("income", "f1", {"sex": "m"}, 40, 0.5, None, None, None),
    GroupRow("hours", "bias", {"sex": "m"}, 40, -2.0, -3.0, -1.0, None),
]


def test_each_group_has_its_point_and_its_interval():
    chart = draw_groups(ROWS, {"income": "auroc", "hours": "r2"})
    assert choose_panels(ROWS, {"income": "auroc", "hours": "r2"}) == [
        ("income", "auroc"),
        ("hours", "bias"),
    ]
    panel = chart.figure.axes[0]
    points = [line.get_xydata()[0] for line in panel.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, [[0.8, 0], [0.7, 1], [0.9, 2]])
    intervals = [line.get_xdata() for line in panel.lines if len(line.get_xdata()) == 2]
    assert [0.6, 0.8] in [list(ends) for ends in intervals]
    # the group without a value has a cross
    assert [line.get_ydata()[0] for line in panel.lines if line.get_marker() == "x"] == [3]
    assert "income auroc from 0.7 (f) to 0.9 (m)" in chart.finding
    assert "income: auroc" in to_svg(chart)


def test_no_values_make_no_picture():
    assert draw_groups([ROWS[3]], {"income": "auroc"}).figure is None


def test_score_against_gap_has_a_mark_for_each_method():
    runs = [
        TradeoffRun("plain", "a", 0, 0.90, 0.4),
        TradeoffRun("plain", "b", 1, 0.92, 0.3),
        TradeoffRun("fair", "c", 0, 0.89, 0.1),
        TradeoffRun("poor", "d", 0, 0.80, 0.5),
    ]
    methods = summarise_runs(runs)
    plain, fair, _ = methods
    assert (plain.runs, plain.score, plain.gap) == pytest.approx((2, 0.91, 0.35))
    assert plain.score_spread == pytest.approx(np.std([0.9, 0.92], ddof=1))
    assert (fair.score_spread, fair.gap_spread) == (None, None)
    chart = draw_tradeoff(runs, methods, ("gap", "auroc"), 1, "income")
    assert chart.finding.startswith("No method is better in both than plain and fair.")
    assert "smallest gap is 0.1 (fair, with 0.89)" in chart.finding
    assert chart.figure.axes[0].get_xlabel() == "gap ←"
    texts = [text.get_text() for text in chart.figure.axes[0].texts]
    assert texts == ["plain", "fair", "poor"]
