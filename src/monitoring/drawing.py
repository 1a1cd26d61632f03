"""Figures that several watchers draw."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def panels(count: int, name_length: int = 0) -> list[Any]:
    """Square panels in one figure, with room for names of so many letters on their left and below.

    The figure stands outside pyplot's global state, which is neither safe nor freed in long runs, and has margins worked out here:
    Matplotlib's own layouts draw it several times.
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
        left, top = (i % columns) * (margin + side) + margin, (i // columns) * (margin + side + gap) + gap
        boxes.append(figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height)))
    return boxes


def short(name: str) -> str:
    """At most 20 letters of a name."""
    return name if len(name) <= 20 else f"{name[:19]}…"


def matrix_figure(
    title: str, rows: Sequence[str], columns: Sequence[str], values: np.ndarray, top: float | None = None
) -> "Figure":
    """A map of colours with names, and with numbers where there are few.

    Args:
        title: Above it.
        rows: Names of the rows.
        columns: Names of the columns.
        values: (rows, columns); where some are negative, blue is above 0 and red below.
        top: The value of the darkest colour; None: the largest there is.
    """
    top = top or float(np.nanmax(np.abs(values), initial=0)) or 1.0
    signed = bool((values < 0).any())
    [axes] = panels(1, max(map(len, map(short, [*rows, *columns]))))
    axes.imshow(values, vmin=-top if signed else 0, vmax=top, cmap="RdBu" if signed else "Blues", aspect="auto")
    axes.set_xticks(range(len(columns)), map(short, columns), rotation=90, fontsize=10 if len(columns) <= 20 else 5)
    axes.set_yticks(range(len(rows)), map(short, rows), fontsize=10 if len(rows) <= 20 else 5)
    axes.set(title=title)
    few = max(values.shape) <= 10
    for i, row in enumerate(values if few else ()):
        for j, value in enumerate(row):
            dark = abs(value) > 0.6 * top
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black", fontsize=8)
    return axes.figure


def routes_figure(title: str, rows: Sequence[str], columns: Sequence[str], places: np.ndarray) -> "Figure":
    """One line per row through its place at each column: tasks that run side by side share, where lines part they branch.

    Args:
        title: Above it.
        rows: Names of the lines.
        columns: Names of what they pass through.
        places: (rows, columns) integers.
    """
    [axes] = panels(1, max(map(len, map(short, [*rows, *columns]))))
    for i, (name, route) in enumerate(zip(rows, places, strict=True)):
        apart = (i - (len(rows) - 1) / 2) / max(len(rows), 1) * 0.5  # side by side, not on top of each other
        axes.plot(range(len(columns)), route + apart, marker="o", markersize=4, label=short(name))
        axes.annotate(short(name), (len(columns) - 1, route[-1] + apart), xytext=(5, -3), textcoords="offset points", fontsize=8)
    axes.set_xticks(range(len(columns)), map(short, columns), rotation=90)
    axes.set_yticks(range(int(places.max()) + 1))
    axes.set(title=title, ylabel="branch", xlim=(-0.3, len(columns) - 0.4))
    return axes.figure
