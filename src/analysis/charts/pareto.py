"""Two tasks against each other: the front, and fixed weights traced through it."""

from typing import TYPE_CHECKING

import numpy as np

from src.analysis.charts.bounds import find_bounds
from src.analysis.charts.chart import FAINT, GRID, INK, PAPER, Chart, make_figure, use_style
from src.analysis.charts.labels import Look, clean_name, join_names, label_right

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

TITLE = "Two tasks against each other"
MOST_LABELS = 14


def draw_pareto(
    candidates: "DataFrame",
    means: "DataFrame",
    names: tuple[str, str],
    signs: tuple[int, int],
) -> Chart:
    """Draws fixed weights on validation rows at the left, rows on test rows at the right.

    Args:
        candidates: x, y, chosen: validation values of the fixed weights that were tried.
        means: row, x, x_low, x_high, y, y_low, y_high: test values of the rows; x_val, y_val: their
            means on validation rows.
        names: Labels of both axes.
        signs: 1 where more is better, -1 where less is.
    """
    means = means[np.isfinite(means[["x", "y"]].to_numpy(float)).all(1)]
    means, beyond = drop_far(means)
    candidates = candidates[np.isfinite(candidates[["x", "y"]].to_numpy(float)).all(1)]
    labels = [
        f"{clean_name(name)} {'→' if sign > 0 else '←'}"
        for name, sign in zip(names, signs, strict=True)
    ]
    title = f"{TITLE}: {clean_name(names[0])} and {clean_name(names[1])}"
    if means.empty:
        return Chart("pareto", title, "No row has a value of both metrics.")
    with use_style():
        figure = make_figure(3.6)
        if len(candidates):
            left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
            draw_candidates(left, candidates, means, signs)
            left.set_title("validation rows")
            left.set(xlabel=labels[0], ylabel=labels[1])
        else:
            right = figure.subplots()
        front = draw_means(right, means, signs)
        right.set_title("test rows")
        right.set(xlabel=labels[0], ylabel=labels[1])
    caption = "Arrows at the names of the axes point to the better side. "
    if len(candidates):
        caption += (
            "Left: circles are fixed weights that were tried, the chosen ones filled; grey steps "
            "trace the best of them from one task to the other. Marks are the rows' means there. "
        )
    caption += (
        "Right: means with 95 % intervals of both metrics; grey steps bound what no row improves "
        "on in both tasks at once."
    )
    if beyond:
        caption += f" Beyond the figure: {join_names(beyond, 12)}."
    on_front = [clean_name(row) for row in means["row"][front]]
    finding = f"On test rows no row is better in both tasks than {join_names(on_front, 12)}."
    if len(candidates):
        count = int(find_front(candidates[["x", "y"]].to_numpy(float), signs).sum())
        verb = "is" if count == 1 else "are"
        finding += f" Of {len(candidates)} fixed weights, {count} {verb} on the validation front."
    return Chart("pareto", title, finding, caption, figure)


def drop_far(means: "DataFrame") -> tuple["DataFrame", list[str]]:
    """Returns the rows without those far away from the others, and the names of these."""
    near = np.ones(len(means), bool)
    for axis in "xy":
        ends = [means[name].to_numpy(float) for name in (axis, f"{axis}_low", f"{axis}_high")]
        low, high = find_bounds(*ends)
        near &= (ends[0] >= low) & (ends[0] <= high)
    return means[near], [clean_name(row) for row in means["row"][~near]]


def find_front(points: np.ndarray, signs: tuple[int, ...]) -> np.ndarray:
    """Returns which points (n, T) no other point beats: as good in all, and better in one."""
    values = points * np.array(signs)
    no_worse = (values[None] >= values[:, None]).all(-1)
    better = (values[None] > values[:, None]).any(-1)
    return ~(no_worse & better).any(1)


def draw_front(
    axes: "Axes", points: np.ndarray, signs: tuple[int, int], color: str = FAINT
) -> None:
    """Draws the steps that bound the region which the points of a front (n, 2) dominate."""
    ordered = points[np.argsort(points[:, 0] * signs[0], kind="stable")]
    # towards the better x the front holds its height until the point itself
    axes.step(ordered[:, 0], ordered[:, 1], where="pre", color=color, linewidth=1.0, zorder=1)


def draw_candidates(
    axes: "Axes", candidates: "DataFrame", means: "DataFrame", signs: tuple[int, int]
) -> None:
    """Draws the fixed weights that were tried, and means of the rows on the same data."""
    points = candidates[["x", "y"]].to_numpy(float)
    chosen = candidates["chosen"].to_numpy(bool)
    draw_front(axes, points[find_front(points, signs)], signs)
    for shown, face in ((~chosen, PAPER), (chosen, INK)):
        x, y = points[shown].T
        axes.plot(x, y, linestyle="none", marker="o", color=INK, markerfacecolor=face)
    for place, mean in enumerate(means[["x_val", "y_val"]].to_numpy(float)):
        look = Look(place)
        axes.plot(mean[0], mean[1], marker=look.marker, color=look.color, markersize=4)
    axes.grid(color=GRID)
    axes.margins(0.08)


def draw_means(axes: "Axes", means: "DataFrame", signs: tuple[int, int]) -> np.ndarray:
    """Draws means with both intervals and their names; returns which are on the front."""
    points = means[["x", "y"]].to_numpy(float)
    front = find_front(points, signs)
    draw_front(axes, points[front], signs)
    for place, (_, line) in enumerate(means.iterrows()):
        look = Look(place)
        axes.plot([line["x_low"], line["x_high"]], [line["y"]] * 2, color=look.color, linewidth=0.9)
        axes.plot([line["x"]] * 2, [line["y_low"], line["y_high"]], color=look.color, linewidth=0.9)
        axes.plot(line["x"], line["y"], marker=look.marker, color=look.color)
    axes.grid(color=GRID)
    axes.margins(0.08)

    # of many rows, the names of the front
    named = np.arange(len(means)) if len(means) <= MOST_LABELS else np.flatnonzero(front)
    named = named[:MOST_LABELS]
    texts = [clean_name(means["row"].iloc[place], 22) for place in named]
    label_right(axes, texts, points[named], [Look(int(place)) for place in named])
    return front
