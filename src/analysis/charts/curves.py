"""Validation scores in the course of training, with bands over replicates."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.analysis.charts.chart import INK, Chart, make_figure, use_style
from src.analysis.charts.labels import Look, clean_name, label_right

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

TITLE = "Learning curves on validation rows"
MOST_PANELS = 12
MOST_ROWS = 6
COLUMNS = 2
FEWEST_STEPS = 10  # validations from which on a rise is cut
RISE = 0.2  # share of the steps whose rise does not set the range of a panel


def draw_curves(curves: "DataFrame", rows: Sequence[str], tasks: Sequence[str]) -> Chart:
    """Draws a panel for the score and one per task, a line and a band per row.

    Args:
        curves: row, seed, fold, task ("" for the score of the whole run), step, score.
        rows: Rows from the most to the least important one, which may be left out.
        tasks: The tasks in the order of the panels.
    """
    found = set(curves["row"])
    known = [row for row in rows if row in found]
    if not known:
        return Chart("curves", TITLE, "No run has left its validation scores.")
    shown = known[:MOST_ROWS]
    panels = [panel for panel in ("", *tasks) if (curves["task"] == panel).any()]
    panels, cut = panels[:MOST_PANELS], len(panels)
    columns = min(COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    ends: dict[tuple[str, str], float] = {}
    with use_style():
        figure = make_figure(2.3 * lines)
        boxes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, panel in zip(boxes, panels, strict=False):
            chosen = curves[curves["task"] == panel]
            reached = draw_panel(axes, chosen, shown)
            ends |= {(panel, row): value for row, value in reached.items()}
            axes.set_title(clean_name(panel) or "score, the mean over tasks")
            axes.set_xlabel("step")
        for axes in boxes[len(panels) :]:
            axes.set_visible(False)
    caption = (
        "Lines are means over replicates, up to the last step that all of them have reached; bands "
        "span all replicates. Higher is better: a metric where less is better has its sign "
        "changed. The rise over the first fifth of the steps may begin below its panel."
    )
    if len(known) > len(shown):
        caption += f" The figure has {len(shown)} of {len(known)} rows, the best ones on test rows."
    if cut > len(panels):
        caption += f" It has the first {len(panels)} of {cut} panels."
    return Chart("curves", TITLE, tell_curves(panels[0], shown, ends), caption, figure)


def draw_panel(axes: "Axes", curves: "DataFrame", rows: list[str]) -> dict[str, float]:
    """Draws the curves of one score; returns the last mean of each row.

    Args:
        axes: The panel.
        curves: row, seed, fold, step, score of one score.
        rows: The rows.
    """
    texts, ends, looks, reached = [], [], [], {}
    tops, bottoms = [], []
    for place, row in enumerate(rows):
        steps, values = align_curves(curves[curves["row"] == row])
        if not len(steps):
            continue
        look = Look(place)
        mean = values.mean(0)
        every = max(1, len(steps) // 6)
        axes.plot(
            steps,
            mean,
            color=look.color,
            linestyle=look.dashes,
            marker=look.marker,
            markersize=3.5,
            markevery=(min(place, every - 1), every),
        )
        if len(values) > 1:
            band = values.min(0), values.max(0)
            axes.fill_between(steps, *band, color=look.color, alpha=0.15, linewidth=0)
        texts.append(clean_name(row, 20))
        ends.append((steps[-1], mean[-1]))
        looks.append(look)
        reached[row] = float(mean[-1])
        rise = RISE if len(steps) >= FEWEST_STEPS else 0
        later = steps >= steps[0] + rise * (steps[-1] - steps[0])
        tops.append(values[:, later].max())
        bottoms.append(values[:, later].min())
    axes.margins(x=0.01)
    if tops and max(tops) > min(bottoms):
        margin = 0.06 * (max(tops) - min(bottoms))
        axes.set_ylim(min(bottoms) - margin, max(tops) + margin)
    axes.grid(axis="y")
    label_right(axes, texts, np.array(ends), looks)
    if not texts:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, color=INK, ha="center")
    return reached


def align_curves(curves: "DataFrame") -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps that all replicates of a row have passed, and their values there.

    Between two validations of a replicate values are interpolated linearly.

    Args:
        curves: seed, fold, step, score of one row and score.

    Returns:
        Steps (n,) and values (replicates, n).
    """
    known = curves[np.isfinite(curves["score"].to_numpy(dtype=float))]
    lines = []
    for _, one in known.groupby(["seed", "fold"], dropna=False, sort=True):
        ordered = one.drop_duplicates("step", keep="last").sort_values("step")
        lines.append((ordered["step"].to_numpy(float), ordered["score"].to_numpy(float)))
    if not lines:
        return np.empty(0), np.empty((0, 0))
    first = max(steps[0] for steps, _ in lines)
    last = min(steps[-1] for steps, _ in lines)
    union = np.unique(np.concatenate([steps for steps, _ in lines]))
    common = union[(union >= first) & (union <= last)]
    return common, np.array([np.interp(common, steps, values) for steps, values in lines])


def tell_curves(panel: str, rows: list[str], ends: dict[tuple[str, str], float]) -> str:
    """Returns the end of the first panel's curves in words."""
    name = clean_name(panel) or "the score over all tasks"
    reached = {row: ends[panel, row] for row in rows if (panel, row) in ends}
    if not reached:
        return f"No curve of {name} has values."
    ordered = sorted(reached, key=lambda row: -reached[row])
    listed = ", ".join(f"{clean_name(row)} {reached[row]:.4g}" for row in ordered)
    return f"At the end of its curve, {name} is: {listed}."
