"""A figure of a report: drawn, told in words, saved for a page and for papers."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING
from xml.dom import minidom

from src.analysis.charts.labels import COLORS, FORBIDDEN
from src.files.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches, of a page of text
INK = "#1b1f24"
FAINT = "#868e97"
GRID = "#dfe2e6"
PAPER = "#ffffff"
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
        path = folder / f"{chart.name}.{kind}"
        write_atomically(path, methodcaller("write", content.getvalue()))
    return svg
