"""The picture of a front."""

import numpy as np
import pytest

from src.analysis.charts.chart import to_svg
from src.analysis.charts.front import draw_fronts

SCORES = np.random.default_rng(0).random((6, 3))


@pytest.mark.parametrize(("tasks", "panels"), [(2, 1), (3, 3)])
def test_there_is_a_panel_for_each_two_tasks(tasks, panels):
    names = ["income", "hours", "age"][:tasks]
    sets = {"PaLoRA": SCORES[:, :tasks], "other runs": SCORES[:2, :tasks]}
    chart = draw_fronts(sets, names, ["R2"] * tasks, "20 rows", "Half of the box.")
    shown = [axes for axes in chart.figure.axes if axes.get_visible()]
    assert len(shown) == panels
    assert shown[0].get_xlabel() == "income, R2"
    points = [line for line in shown[0].lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(points[0].get_xydata(), SCORES[:, :2])
    svg = to_svg(chart)
    for word in ("PaLoRA", "other runs", "Half of the box."):
        assert word in svg


def test_one_task_and_very_many_have_no_picture():
    for tasks in (1, 5):
        chart = draw_fronts(
            {"PaLoRA": np.zeros((2, tasks))}, ["t"] * tasks, ["R2"] * tasks, "rows", "finding"
        )
        assert chart.figure is None
