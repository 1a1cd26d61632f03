"""Test results of each task by row, as bars from the single-task networks' result."""

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from src.analysis.charts.bounds import HINT, find_bounds, mark_beyond
from src.analysis.charts.chart import INK, Chart, make_figure, use_style
from src.analysis.charts.labels import COLORS, clean_name, join_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

TITLE = "Test results by task"
MOST_TASKS = 12
COLUMNS = 3


def draw_tasks(
    summary: "DataFrame",
    monitors: dict[str, str],
    signs: dict[str, int],
    origin: str | None,
    references: Collection[str] = (),
) -> Chart:
    """Draws a panel per task, with a bar and an interval per row, for the task's monitor.

    Args:
        summary: row, task, metric, mean, low, high; in the order of the report.
        monitors: {task: its metric}, in the order of the panels.
        signs: {task: 1 where more is better, -1 where less is}.
        origin: The row where bars begin; without it there are points alone.
        references: Rows that do not set the range of an axis.
    """
    tasks = [task for task in monitors if is_known(summary, task, monitors[task])]
    if not tasks:
        return Chart("tasks", TITLE, "No task has a result on test rows.")
    shown = tasks[:MOST_TASKS]
    rows = list(dict.fromkeys(summary["row"]))
    columns = 2 if len(shown) in (2, 4) else min(COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    beyond = False
    with use_style():
        figure = make_figure(lines * (0.75 + 0.21 * len(rows)))
        boxes = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for axes, task in zip(boxes, shown, strict=False):
            chosen = (summary["task"] == task) & (summary["metric"] == monitors[task])
            beyond |= draw_panel(axes, summary[chosen], rows, origin, references)
            arrow = "more is better →" if signs[task] > 0 else "← less is better"
            axes.set_title(clean_name(task, 22))
            axes.set_xlabel(f"{clean_name(monitors[task], 16)}, {arrow}", fontsize=8)
        for axes in boxes[len(shown) :]:
            axes.set_visible(False)
        boxes[0].set_yticks(range(len(rows)), [clean_name(name, 22) for name in rows])
        boxes[0].set_ylim(len(rows) - 0.5, -0.5)
    begin = f"Bars begin at the mean of {clean_name(origin)}. " if origin and origin in rows else ""
    caption = f"{begin}Points are means on test rows, lines are 95 % intervals."
    caption += HINT if beyond else ""
    if len(tasks) > len(shown):
        caption += (
            f" The figure has the first {len(shown)} of {len(tasks)} tasks, the table has all."
        )
    finding = tell_tasks(summary, {task: monitors[task] for task in shown}, signs)
    return Chart("tasks", TITLE, finding, caption, figure)


def is_known(summary: "DataFrame", task: str, metric: str) -> bool:
    """Returns whether any row has a value of a metric."""
    chosen = (summary["task"] == task) & (summary["metric"] == metric)
    return bool(np.isfinite(summary[chosen]["mean"].to_numpy(dtype=float)).any())


def draw_panel(
    axes: "Axes",
    values: "DataFrame",
    rows: list[str],
    origin: str | None,
    references: Collection[str],
) -> bool:
    """Draws the panel of a task; returns whether a row lies beyond it.

    Args:
        axes: The panel.
        values: row, mean, low, high of its metric.
        rows: The rows from top to bottom.
        origin: The row where bars begin.
        references: Rows that do not set the range.
    """
    found = values.set_index("row")[["mean", "low", "high"]].astype(float).reindex(rows)
    mean = found["mean"].to_numpy()
    close = np.array([row not in references for row in rows])
    bounds = find_bounds(mean, found["low"].to_numpy(), found["high"].to_numpy(), close)
    y = np.arange(len(rows))
    start = found["mean"].get(origin, np.nan) if origin else np.nan
    if np.isfinite(start):
        axes.barh(y, found["mean"] - start, left=start, height=0.55, color=COLORS[0], alpha=0.35)
        axes.axvline(start, color=INK, linewidth=0.8)
    axes.hlines(y, found["low"], found["high"], color=INK, linewidth=1.1)
    axes.plot(found["mean"], y, linestyle="none", marker="o", color=INK, markersize=3.5)
    axes.set_xlim(*bounds)
    beyond = mark_beyond(axes, mean, y)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.locator_params(axis="x", nbins=4)
    axes.spines["left"].set_visible(False)
    return beyond


def tell_tasks(summary: "DataFrame", monitors: dict[str, str], signs: dict[str, int]) -> str:
    """Returns the best mean of each task in words."""
    parts = []
    for task, metric in monitors.items():
        chosen = summary[(summary["task"] == task) & (summary["metric"] == metric)]
        chosen = chosen[np.isfinite(chosen["mean"].to_numpy(dtype=float))]
        best = chosen.loc[(chosen["mean"] * signs[task]).idxmax()]
        parts.append(f"{clean_name(best['row'])} on {clean_name(task)} ({best['mean']:.4g})")
    return f"The best mean is that of {join_names(parts, 12)}."
