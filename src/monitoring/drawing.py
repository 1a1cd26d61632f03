"""Figures that several watchers draw."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_panels(count: int, name_length: int = 0) -> list[Any]:
    """Returns the axes of square panels in one figure.

    The figure is not in pyplot's global state, which is neither safe nor freed in long runs. Its
    margins are computed here, since Matplotlib's own layouts draw it several times.

    Args:
        count: Number of panels.
        name_length: Letters of the longest name on the left and below.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = math.ceil(count**0.5)
    rows = -(-count // columns)
    # in inches
    side = 3.0
    gap = 0.4
    margin = 0.65 + 0.08 * name_length
    width = columns * (margin + side) + gap
    height = rows * (margin + side + gap)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    boxes = []
    for i in range(count):
        left = (i % columns) * (margin + side) + margin
        top = (i // columns) * (margin + side + gap) + gap
        place = (left / width, 1 - (top + side) / height, side / width, side / height)
        boxes.append(figure.add_axes(place))
    return boxes


def shorten_name(name: str) -> str:
    """Returns at most 20 letters of a name."""
    return name if len(name) <= 20 else f"{name[:19]}…"


def draw_matrix(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    top: float | None = None,
) -> "Figure":
    """Draws a matrix as colours, with its numbers where there are few.

    Args:
        title: The title.
        rows: Names of the rows.
        columns: Names of the columns.
        values: (rows, columns); where some are negative, blue is above 0 and red below.
        top: The value of the darkest colour; None: 1, or the largest value if that is more.
    """
    signed = bool((values < 0).any())
    largest = float(np.nanmax(np.abs(values), initial=0))
    # shares look the same in every figure
    if not top:
        top = 1.0 if largest <= 1 and not signed else largest
    [axes] = make_panels(1, max(map(len, map(shorten_name, [*rows, *columns]))))
    axes.imshow(
        values,
        vmin=-top if signed else 0,
        vmax=top,
        cmap="RdBu" if signed else "Blues",
        aspect="auto",
        interpolation="nearest",
    )
    # of many names some
    every = 1 if len(columns) <= 40 else -(-len(columns) // 20)
    shown = range(0, len(columns), every)
    names = [shorten_name(columns[i]) for i in shown]
    axes.set_xticks(shown, names, rotation=90, fontsize=10 if len(columns) <= 20 else 5)
    names = [shorten_name(name) for name in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=10 if len(rows) <= 20 else 5)
    axes.set(title=title)
    few = max(values.shape) <= 10
    for i, row in enumerate(values if few else ()):
        for j, value in enumerate(row):
            if np.isnan(value):
                continue  # the cell stays blank
            dark = abs(value) > 0.6 * top
            axes.text(
                j,
                i,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="white" if dark else "black",
                fontsize=8,
            )
    return axes.figure


def draw_routes(
    title: str, rows: Sequence[str], columns: Sequence[str], places: np.ndarray
) -> "Figure":
    """Draws a line per row through its place at each column.

    Tasks whose lines run side by side share; where lines part, tasks branch.

    Args:
        title: The title.
        rows: Names of the lines.
        columns: Names of the stages that they pass through.
        places: (rows, columns) integers; lines with equal integers at a column share there.
    """
    [axes] = make_panels(1, max(map(len, map(shorten_name, [*rows, *columns]))))
    heights = np.empty(places.shape)
    before = np.arange(len(rows), dtype=float)
    for k in range(len(columns)):
        # places are in the order of the heights that their lines come from, so that lines run
        # straight on until they part
        origins = {}
        for place in np.unique(places[:, k]):
            lines = places[:, k] == place
            origins[place] = (before[lines].mean(), lines.nonzero()[0].mean())
        in_order = sorted(origins, key=lambda place: origins[place])
        ranks = {place: rank for rank, place in enumerate(in_order)}

        middle = (len(origins) - 1) / 2
        before = np.array([ranks[place] - middle for place in places[:, k]])
        heights[:, k] = before
    # side by side, not on top of each other
    apart = (np.arange(len(rows)) - (len(rows) - 1) / 2) / len(rows) * 0.5
    for name, route, shift in zip(rows, heights, apart, strict=True):
        axes.plot(
            range(len(columns)), route + shift, marker="o", markersize=4, label=shorten_name(name)
        )
    names = [shorten_name(name) for name in rows]
    axes.set_yticks(heights[:, 0] + apart, names, fontsize=10 if len(rows) <= 12 else 5)
    axes.set_xticks(range(len(columns)), [shorten_name(name) for name in columns], rotation=90)
    axes.set(title=title)
    return axes.figure
