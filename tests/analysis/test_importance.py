"""Falls of scores: their mean and interval, and the table of all."""

import math

import numpy as np

from src.analysis.charts.importance import draw_importance
from src.analysis.importance import Importance, summarise_drops, tabulate_importance


def test_the_interval_is_of_the_resampled_falls():
    whole, resampled = [0.1, 0.3], [0.0, 0.2, 0.4]
    drop, low, high = summarise_drops(whole, resampled)
    half = 1.96 * np.std(resampled, ddof=1)
    np.testing.assert_allclose([drop, low, high], [0.2, 0.2 - half, 0.2 + half])


def test_undefined_falls_give_no_interval():
    drop, low, high = summarise_drops([0.1], [math.nan, 0.2])
    assert drop == 0.1
    assert math.isnan(low)
    assert math.isnan(high)


def test_the_most_important_column_of_a_task_comes_first():
    found = [
        Importance(task, column, "permutation", 0.9, drop, drop - 0.1, drop + 0.1)
        for task, column, drop in (("b", "x", 0.1), ("b", "y", 0.2), ("a", "x", 0.3))
    ]
    table = tabulate_importance(found)
    assert table[["task", "column"]].to_numpy().tolist() == [["b", "y"], ["b", "x"], ["a", "x"]]

    figure = draw_importance(found)
    assert [axes.get_title("left") for axes in figure.axes] == ["b", "a"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["x", "y"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.1, 0.2]
