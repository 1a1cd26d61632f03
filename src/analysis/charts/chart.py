"""A figure of a report: drawn, told in words, saved for a page and for papers.

Rows are told apart by marker, dashes and a label beside them. Colour only repeats that.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.dom import minidom

import numpy as np

from src.files.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches, of a page of text
INK = "#1b1f24"
FAINT = "#868e97"
GRID = "#dfe2e6"
PAPER = "#ffffff"
COLORS = ("#0b62a4", "#b4441a", "#177a4c", "#8a4fa0", "#8a6d00", "#a3295f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1, 1.5), (6, 2, 1, 2), (10, 2), (3, 1, 1, 1))
STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.0,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    # small files, with text that can be searched and read aloud
    "svg.fonttype": "none",
    # the same study makes the same bytes
    "svg.hashsalt": "report",
    # journals ask for embedded TrueType fonts
    "pdf.fonttype": 42,
}
# a stylesheet sets these variables, so that figures follow a dark page
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{color: f"var(--c{i})" for i, color in enumerate(COLORS)},
}
# letters that an XML file may not hold, even escaped
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Chart:
    """A figure with its words.

    Attributes:
        name: Its name in files.
        title: Its title.
        finding: The finding in words, for people who do not see it; or why there is no figure.
        caption: How the figure is read.
        figure: The figure; None where there is nothing to draw.
    """

    name: str
    title: str
    finding: str
    caption: str = ""
    figure: "Figure | None" = None


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


@contextmanager
def use_style() -> Iterator[None]:
    """Draws and saves in the style of reports, whatever the user's own settings are."""
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        # a browser has fonts for letters that the font of measurements lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def make_figure(height: float, width: float = WIDTH) -> "Figure":
    """Returns an empty figure that is not in pyplot's global state; sizes are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def clean_name(name: str, most: int = 28) -> str:
    """Returns a name in one line of at most so and so many letters, without control letters."""
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
    lines = axes.get_subplotspec().get_gridspec().nrows
    inches = axes.figure.get_figheight() / lines - 0.75
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
        place = {"transform": axes.transAxes, "va": "center", "fontsize": 8}
        axes.text(1.09, height, text, color=look.color, **place)


def to_svg(chart: Chart) -> str:
    """Returns the figure as an SVG file with its title and its finding, without a date."""
    assert chart.figure is not None
    file = io.BytesIO()
    with use_style():
        # the layout is computed once for all files
        chart.figure.draw_without_rendering()
        chart.figure.set_layout_engine("none")
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        chart.figure.savefig(file, format="svg", metadata=nothing)
    document = minidom.parseString(file.getvalue())
    root = document.documentElement
    assert root is not None

    # screen readers read the first title and description of an image
    words = {"desc": chart.finding, "title": chart.title}
    for tag, text in words.items():
        element = document.createElement(tag)
        element.setAttribute("id", f"{chart.name}-{tag}")
        element.appendChild(document.createTextNode(FORBIDDEN.sub("", text)))
        root.insertBefore(element, root.firstChild)
    root.setAttribute("role", "img")
    root.setAttribute("aria-labelledby", f"{chart.name}-title {chart.name}-desc")

    # several figures on one page may not share names
    for element in document.getElementsByTagName("*"):
        for key, value in list((element.attributes or {}).items()):
            if key == "id" and value not in (f"{chart.name}-title", f"{chart.name}-desc"):
                element.setAttribute(key, f"{chart.name}-{value}")
            elif key.endswith("href"):
                element.setAttribute(key, value.replace("#", f"#{chart.name}-"))
            elif "url(#" in value:
                element.setAttribute(key, value.replace("url(#", f"url(#{chart.name}-"))
    return root.toxml()


def embed_svg(svg: str) -> str:
    """Returns an SVG file for a page, whose stylesheet then sets its colours."""
    for color, variable in VARIABLES.items():
        # styles alone end a colour like this
        svg = re.sub(rf"(: ?){color}(?=[;\"])", rf"\1{variable}", svg)
    return svg


def save_chart(chart: Chart, folder: Path) -> str:
    """Saves a figure as SVG, PDF and PNG; returns the SVG."""
    assert chart.figure is not None
    svg = to_svg(chart)
    text = f'<?xml version="1.0" encoding="utf-8"?>\n{svg}\n'
    write_atomically(folder / f"{chart.name}.svg", lambda file: file.write(text.encode()))
    figure = chart.figure
    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
        content = io.BytesIO()
        with use_style():
            figure.savefig(content, format=kind, metadata=metadata, dpi=200)
        data = content.getvalue()
        write_atomically(folder / f"{chart.name}.{kind}", lambda file, data=data: file.write(data))
    return svg
