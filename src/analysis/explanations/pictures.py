"""Pictures of explanations: bars of columns, heat maps, deletion curves, matrices of similarity."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from src.analysis.charts.chart import make_figure, use_style
from src.analysis.explanations.results import Explanation, TaskExplanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

MOST_COLUMNS = 15  # in a panel
MOST_OUTPUTS = 6  # panels of one task
MOST_IMAGES = 6
UP, DOWN = "#0b62a4", "#b4441a"  # what raises the output, and what lowers it


def draw_task(found: Explanation, task: TaskExplanation) -> "Figure":
    """Draws a task: a panel of columns for each output, or heat maps, and its deletion curve."""
    shown = task.outputs[:MOST_OUTPUTS]
    if found.images and not found.has_table:
        return draw_heat_maps(found, task)
    panels = len(shown) if found.has_table else 0
    bars = max((len(own.columns) for own in shown), default=1)
    height = max(2.6, 0.9 + 0.24 * min(MOST_COLUMNS, bars)) if panels else 2.6
    with use_style():
        figure = make_figure(height, 3.4 * (panels + 1))
        boxes = figure.subplots(1, panels + 1, squeeze=False)[0]
        for axes, own in zip(boxes[:panels], shown[:panels], strict=True):
            draw_bars(axes, own.columns, f"{own.output.title}", own.output.unit)
        draw_deletion(boxes[-1], task)
    return figure


def draw_bars(axes: "Axes", columns: Sequence[object], title: str, unit: str) -> None:
    """Draws mean |attributions| with their intervals; the colour says in which direction."""
    shown = list(columns)[:MOST_COLUMNS][::-1]
    for place, one in enumerate(shown):
        assert isinstance(one, dict)
        colour = UP if one["mean"] >= 0 else DOWN
        axes.barh(place, one["mean_abs"], color=colour, alpha=0.75)
        axes.plot([one["low"], one["high"]], [place, place], color="black", linewidth=1)
    names = [shorten(one["column"]) for one in shown if isinstance(one, dict)]
    axes.set_yticks(range(len(shown)), names)
    axes.set(title=title, xlabel=f"mean |attribution|, {unit}" if unit else "mean |attribution|")


def draw_deletion(axes: "Axes", task: TaskExplanation) -> None:
    """Draws the score of a task as the largest attributions, or random ones, are deleted."""
    axes.set(title=f"{task.task}: deletion", xlabel="share of features put to the baseline")
    axes.set_ylabel(shorten(task.score, 40))
    if task.deletion is None:
        axes.text(0.5, 0.5, "no row has a label", ha="center", transform=axes.transAxes)
        return
    own = task.deletion
    axes.plot(own.shares, own.random, color="grey", linestyle="--", label="random order")
    axes.plot(own.shares, own.attributed, color=UP, label="largest |attribution| first")
    axes.fill_between(own.shares, own.attributed, own.random, color=UP, alpha=0.12)
    axes.legend(frameon=False, fontsize=7)


def draw_heat_maps(found: Explanation, task: TaskExplanation) -> "Figure":
    """Draws a few images, each with a heat map for each output beside it."""
    (name,) = list(found.images)[:1]
    images = found.images[name]
    pixels = found.pixels[name]
    shown = task.outputs[:MOST_OUTPUTS]
    rows = min(MOST_IMAGES, len(images))
    with use_style():
        figure = make_figure(1.25 * rows + 2.8, max(4.0, 1.45 * (len(shown) + 1)))
        halves = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.25 * rows, 2.6))
        upper, lower = halves[:, 0]
        boxes = upper.subplots(rows, len(shown) + 1, squeeze=False)
        for row in range(rows):
            show_image(boxes[row][0], images[row])
            boxes[row][0].set_ylabel(f"{found.ids[row]}", fontsize=7)
            if not row:
                boxes[row][0].set_title("image", fontsize=7)
            for axes, own in zip(boxes[row][1:], shown, strict=True):
                show_map(axes, own.attributions[row][pixels])
                # the first row names the output, and each its value
                head = f"{shorten(own.output.name or task.task, 18)}\n" if not row else ""
                axes.set_title(f"{head}{float(own.at_rows[row]):.3g}", fontsize=7)
        draw_deletion(lower.subplots(), task)
    return figure


def show_image(axes: "Axes", image: Tensor) -> None:
    """Shows an image (C, H, W), scaled from its smallest to its largest number."""
    values = image.double().numpy()
    low, high = values.min(), values.max()
    values = (values - low) / ((high - low) or 1)
    # two channels, or more than three, have no colours
    shown = values.transpose(1, 2, 0) if len(values) == 3 else values.mean(0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])


def show_map(axes: "Axes", attributions: Tensor) -> None:
    """Shows attributions (H, W): blue raises the output, red lowers it, white does nothing."""
    values = attributions.double().numpy()
    largest = float(np.abs(values).max()) or 1.0
    axes.imshow(values, cmap="RdBu", vmin=-largest, vmax=largest)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_table(title: str, table: "DataFrame", low: float | None, high: float | None) -> "Figure":
    """Draws a table of numbers as a map of colours, with the numbers in it where they fit."""
    values = table.to_numpy(dtype=float)
    rows, columns = values.shape
    with use_style():
        figure = make_figure(1.2 + 0.38 * rows, min(14.0, 2.2 + 0.62 * columns))
        axes = figure.subplots()
        axes.imshow(values, cmap="Blues", vmin=low, vmax=high, aspect="auto")
        middle = np.nanmean([np.nanmin(values), np.nanmax(values)]) if values.size else 0.0
        if low is not None and high is not None:
            middle = (low + high) / 2
        axes.set_xticks(range(columns), [shorten(str(c)) for c in table.columns], rotation=60)
        axes.set_yticks(range(rows), [shorten(str(r)) for r in table.index])
        for row in range(rows if columns <= 20 else 0):
            for column in range(columns):
                value = values[row, column]
                colour = "white" if value > middle else "black"
                text = "-" if np.isnan(value) else f"{value:.2f}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
        axes.set_title(title)
    return figure


def shorten(text: str, most: int = 24) -> str:
    """Returns a text that fits beside an axis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def to_png(figure: "Figure") -> bytes:
    """Returns a figure as a PNG file."""
    content = io.BytesIO()
    with use_style():
        figure.savefig(content, format="png", dpi=130)
    return content.getvalue()
