"""Names of rows in figures: how their lines and points look, and where their labels stand.

Rows are told apart by marker, dashes and a label beside them. Colour only repeats that.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#0b62a4", "#b4441a", "#177a4c", "#8a4fa0", "#8a6d00", "#a3295f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1, 1.5), (6, 2, 1, 2), (10, 2), (3, 1, 1, 1))
# letters that an XML file may not hold, even escaped
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Look:
    """Marker, dashes and colour of a row, by its place in the report."""

    place: int

    @property
    def color(self) -> str:
        """The colour."""
        return COLORS[self.place % len(COLORS)]

    @property
    def marker(self) -> str:
        """The marker."""
        return MARKERS[self.place % len(MARKERS)]

    @property
    def dashes(self) -> tuple[float, tuple[float, ...] | None]:
        """The dashes, as Matplotlib reads them."""
        return 0, DASHES[self.place % len(DASHES)] or None


def clean_name(name: str, most: int = 28) -> str:
    """Returns a name in one line of at most ``most`` letters, none a control character."""
    line = FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", " ".join(name.split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def join_names(names: list[str], most: int = 6) -> str:
    """Returns names as a sentence lists them, with the number of further ones."""
    shown = names[:most]
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]


def spread_labels(places: np.ndarray, gap: float, low: float = 0, high: float = 1) -> np.ndarray:
    """Moves places apart by as little as possible, so that labels do not overlap.

    The result minimises the sum of squared moves under y[i + 1] - y[i] >= gap in sorted order and
    low <= y <= high, which is a bounded isotonic regression of places[i] - gap * i. Where there is
    no room for all of them, they pass the upper end.

    Args:
        places: (n,) places that labels would like.
        gap: The least distance from one to the next.
        low: The lower end of the places.
        high: The upper end.
    """
    order = np.argsort(places, kind="stable")
    wanted = places[order] - gap * np.arange(len(places))
    # pool adjacent violators: blocks of (mean, size)
    blocks: list[tuple[float, int]] = []
    for value in wanted:
        mean, size = float(value), 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean = (before * count + mean * size) / (count + size)
            size += count
        blocks.append((mean, size))
    fitted = np.concatenate([np.full(size, mean) for mean, size in blocks] or [np.empty(0)])
    fitted = np.clip(fitted, low, max(low, high - gap * (len(places) - 1)))
    result = np.empty(len(places))
    result[order] = fitted + gap * np.arange(len(places))
    return result


def label_right(axes: "Axes", texts: list[str], ends: np.ndarray, looks: list[Look]) -> None:
    """Writes a label at the right of a panel for each point, none over another.

    Args:
        axes: The panel, with its limits set.
        texts: The labels.
        ends: (n, 2) the points, in data coordinates.
        looks: How the points look.
    """
    if not texts:
        return
    corner = np.array([axes.get_xlim()[0], axes.get_ylim()[0]])
    far = np.array([axes.get_xlim()[1], axes.get_ylim()[1]])
    shares = (ends - corner) / (far - corner)
    # the height of a panel, without its title and the names below
    place = axes.get_subplotspec()
    assert place is not None
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = figure.get_figheight() / place.get_gridspec().nrows - 0.75
    heights = spread_labels(shares[:, 1], 0.165 / inches)
    for text, share, height, look in zip(texts, shares, heights, looks, strict=True):
        axes.plot(
            [share[0], 1.06],
            [share[1], height],
            transform=axes.transAxes,
            color=look.color,
            linewidth=0.5,
            clip_on=False,
            marker=look.marker,
            markersize=3.5,
            markevery=[1],
        )
        axes.text(
            1.09,
            height,
            text,
            transform=axes.transAxes,
            color=look.color,
            va="center",
            fontsize=8,
        )
