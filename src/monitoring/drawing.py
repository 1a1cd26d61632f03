"""Figures that several watchers draw."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def panels(count: int, name_length: int = 0) -> list[Any]:
    """Square panels in one figure, with room for names of so many letters on their left and below.

    The figure stands outside pyplot's global state, which is neither safe nor freed in long runs,
    and has margins worked out here: Matplotlib's own layouts draw it several times.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = math.ceil(count**0.5)
    rows = -(-count // columns)
    side, gap, margin = 3.0, 0.4, 0.65 + 0.08 * name_length  # inches
    width, height = columns * (margin + side) + gap, rows * (margin + side + gap)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    boxes = []
    for i in range(count):
        left, top = (
            (i % columns) * (margin + side) + margin,
            (i // columns) * (margin + side + gap) + gap,
        )
        boxes.append(
            figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
        )
    return boxes


def short(name: str) -> str:
    """At most 20 letters of a name."""
    return name if len(name) <= 20 else f"{name[:19]}…"


def matrix_figure(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    top: float | None = None,
) -> "Figure":
    """A map of colours with names, and with numbers where there are few.

    Args:
        title: Above it.
        rows: Names of the rows.
        columns: Names of the columns.
        values: (rows, columns); where some are negative, blue is above 0 and red below.
        top: The value of the darkest colour; None: 1, or the largest there is if that is more.
    """
    signed = bool((values < 0).any())
    largest = float(np.nanmax(np.abs(values), initial=0))
    top = top or (
        1.0 if largest <= 1 and not signed else largest
    )  # shares look the same in every picture
    [axes] = panels(1, max(map(len, map(short, [*rows, *columns]))))
    axes.imshow(
        values,
        vmin=-top if signed else 0,
        vmax=top,
        cmap="RdBu" if signed else "Blues",
        aspect="auto",
        interpolation="nearest",
    )
    shown = (
        range(len(columns))
        if len(columns) <= 40
        else range(0, len(columns), -(-len(columns) // 20))
    )  # some of many names
    axes.set_xticks(
        shown,
        [short(columns[i]) for i in shown],
        rotation=90,
        fontsize=10 if len(columns) <= 20 else 5,
    )
    axes.set_yticks(range(len(rows)), map(short, rows), fontsize=10 if len(rows) <= 20 else 5)
    axes.set(title=title)
    few = max(values.shape) <= 10
    for i, row in enumerate(values if few else ()):
        for j, value in enumerate(row):
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


def routes_figure(
    title: str, rows: Sequence[str], columns: Sequence[str], places: np.ndarray
) -> "Figure":
    """One line per row through its place at each column: tasks that run side by side share, where lines part they branch.

    Args:
        title: Above it.
        rows: Names of the lines.
        columns: Names of what they pass through.
        places: (rows, columns) integers; which they are does not matter, but who has the same.
    """
    [axes] = panels(1, max(map(len, map(short, [*rows, *columns]))))
    heights = np.empty(places.shape)
    before = np.arange(len(rows), dtype=float)
    for k in range(
        len(columns)
    ):  # a place stands where its lines come from, so that lines run straight on until they part
        inside = {place: places[:, k] == place for place in np.unique(places[:, k])}
        found = {
            place: (before[lines].mean(), lines.nonzero()[0].mean())
            for place, lines in inside.items()
        }
        ranks = {
            place: rank
            for rank, (place, _) in enumerate(sorted(found.items(), key=lambda pair: pair[1]))
        }
        middle = (len(found) - 1) / 2
        before = heights[:, k] = np.array([ranks[place] - middle for place in places[:, k]])
    apart = (
        (np.arange(len(rows)) - (len(rows) - 1) / 2) / len(rows) * 0.5
    )  # side by side, not on top of each other
    for name, route, shift in zip(rows, heights, apart, strict=True):
        axes.plot(range(len(columns)), route + shift, marker="o", markersize=4, label=short(name))
    axes.set_yticks(heights[:, 0] + apart, map(short, rows), fontsize=10 if len(rows) <= 12 else 5)
    axes.set_xticks(range(len(columns)), map(short, columns), rotation=90)
    axes.set(title=title)
    return axes.figure
