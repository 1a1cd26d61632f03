"""The front of one network over preferences, beside runs of fixed weights."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from src.analysis.charts.chart import GRID, PAPER, Chart, make_figure, use_style
from src.analysis.charts.labels import Look, clean_name
from src.analysis.charts.pareto import draw_front, find_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TASKS = 4
COLUMNS = 3  # panels side by side


def draw_fronts(
    sets: Mapping[str, NDArray[np.float64]],
    tasks: Sequence[str],
    scores: Sequence[str],
    rows: str,
    finding: str,
) -> Chart:
    """Draws the scores of several sets of points, a panel for each two tasks.

    Args:
        sets: {what the points are of: (n, T) scores, more is better}, the network's first.
        tasks: The names of the T tasks.
        scores: What each score is, such as accuracy.
        rows: The rows that were evaluated.
        finding: The finding in words.
    """
    title = f"The front between {', '.join(clean_name(task) for task in tasks)}"
    if not 2 <= len(tasks) <= MOST_TASKS:
        return Chart("front", title, finding)
    pairs = list(combinations(range(len(tasks)), 2))
    columns = min(len(pairs), COLUMNS)
    lines = -(-len(pairs) // columns)
    labels = [f"{clean_name(task)}, {score}" for task, score in zip(tasks, scores, strict=True)]

    # runs far from the front would leave it no room
    every = np.concatenate([*sets.values()])
    every = every[np.isfinite(every).all(1)]
    first_set = next(iter(sets.values()))
    kept = find_front(every, (1,) * len(tasks))
    near = np.concatenate([every[kept], first_set[np.isfinite(first_set).all(1)]])
    beyond = int((every < find_view(near)[0]).any(1).sum())
    with use_style():
        figure = make_figure(3.4 * lines if columns > 1 else 3.8)
        panels = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes, (first, second) in zip(panels, pairs, strict=False):
            for place, points in enumerate(sets.values()):
                draw_set(axes, points[:, [first, second]], place, whole=len(tasks) == 2)
            axes.set(xlabel=labels[first], ylabel=labels[second])
            axes.grid(color=GRID)
            set_limits(axes, near[:, [first, second]])
        for axes in panels[len(pairs) :]:
            axes.set_visible(False)
        handles = [panels[0].lines[k] for k in range(len(panels[0].lines))]
        marked = [line for line in handles if line.get_marker() not in ("", "None", None)]
        figure.legend(marked, list(sets), loc="outside upper left", ncols=len(sets), frameon=False)
    caption = f"Scores on {rows}; more is better in both directions."
    if len(tasks) == 2:
        caption += " Steps bound what the points of each kind dominate."
    if beyond:
        caption += f" {beyond} points are beyond the figure."
    return Chart("front", title, finding, caption, figure)


def draw_set(axes: "Axes", points: NDArray[np.float64], place: int, whole: bool) -> None:
    """Draws points (n, 2), and the steps of their front where they are whole scores."""
    points = points[np.isfinite(points).all(1)]
    look = Look(place)
    face = look.color if place == 0 else PAPER
    x, y = points.T
    axes.plot(
        x, y, linestyle="none", marker=look.marker, color=look.color, markerfacecolor=face, zorder=2
    )
    if whole and len(points):
        draw_front(axes, points[find_front(points, (1, 1))], (1, 1), look.color)


def find_view(near: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the lower and upper limits (T,) of a picture that holds some points (n, T)."""
    low = near.min(0)
    high = near.max(0)
    margin = 0.08 * (high - low) + 1e-9
    return low - margin, high + margin


def set_limits(axes: "Axes", near: NDArray[np.float64]) -> None:
    """Limits a panel to some points (n, 2)."""
    (left, bottom), (right, top) = find_view(near)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
