"""The page of a report: one HTML file that opens offline, and its figures as files beside it."""

import base64
import hashlib
from operator import methodcaller
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.analysis.charts.chart import embed_svg, save_chart
from src.analysis.charts.drawing import draw_charts
from src.analysis.charts.labels import join_names
from src.analysis.comparison import Comparison
from src.analysis.page_tables import Links, list_runs, list_tables
from src.analysis.results import list_trials
from src.files.atomic import write_atomically

HERE = Path(__file__).parent
OTHER_FILES = ("report.md", "report.tex", "metrics.csv", "metrics.parquet")
ENDINGS = ("svg", "pdf", "png")


def write_page(comparison: Comparison, path: Path) -> None:
    """Writes the page, and a folder ``figures`` beside it with each figure as SVG, PDF and PNG.

    Args:
        comparison: What it shows.
        path: The file of the page. Its links to run folders are relative to it.
    """
    figures = path.parent / "figures"
    figures.mkdir(exist_ok=True)
    charts: list[dict[str, object]] = []
    for chart in draw_charts(comparison):
        svg = None
        if chart.figure is not None:
            svg = Markup(embed_svg(save_chart(chart, figures)))
        else:
            # a figure of an earlier report
            for ending in ENDINGS:
                (figures / f"{chart.name}.{ending}").unlink(missing_ok=True)
        charts.append({"chart": chart, "svg": svg})
    content = render_page(comparison, path, charts).encode()
    write_atomically(path, methodcaller("write", content))


def render_page(comparison: Comparison, path: Path, charts: list[dict[str, object]]) -> str:
    """Returns the page as HTML.

    Args:
        comparison: What it shows.
        path: The file that it will be.
        charts: Each figure, with its SVG or None.
    """
    links = Links(comparison, path.parent)
    # what users have named is escaped
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (HERE / "page.css").read_text()
    script = (HERE / "page.js").read_text()
    tables = list_tables(comparison, links)
    return environment.get_template("page.html").render(
        record=comparison.record,
        shape=describe_shape(comparison),
        findings=list_findings(comparison),
        tables=tables,
        charts=charts,
        runs=list_runs(comparison, links),
        shown=comparison.shown,
        notes=comparison.notes,
        marks=comparison.marks,
        origins=comparison.origins,
        files=[name for name in OTHER_FILES if (path.parent / name).is_file()],
        endings=ENDINGS,
        style=Markup(style),
        script=Markup(script),
        script_hash=hash_script(script),
    )


def hash_script(script: str) -> str:
    """Returns the hash by which a page allows this script alone to run."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def describe_shape(comparison: Comparison) -> str:
    """Returns how large the study is, in a sentence."""
    record = comparison.record
    runs = {key for row in record["rows"] for one in row["replicates"] for key in list_trials(one)}
    parts = [
        count(len(record["rows"]), "row"),
        count(len(record["tasks"]), "task"),
        count(len(record["seeds"]), "seed"),
    ]
    if record["folds"]:
        parts.append(count(record["folds"], "fold"))
    return f"{join_names(parts)}; {count(len(runs), 'run')} behind the results."


def count(number: int, word: str) -> str:
    """Returns a number with its noun."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def list_findings(comparison: Comparison) -> list[str]:
    """Returns the verdicts of all tests in words, one sentence for each verdict."""
    tests = comparison.tests
    if not len(tests):
        return ["No row was tested against another one."]
    baseline = comparison.record["baseline"]
    found = []
    for verdict, words in (
        ("better", f"Significantly better than {baseline}: "),
        ("worse", f"Significantly worse than {baseline}: "),
        ("no significant difference", f"No significant difference from {baseline}: "),
        ("too few replicates", "Too few replicates to test: "),
    ):
        rows = list(tests[tests["verdict"] == verdict]["row"])
        if rows:
            found.append(f"{words}{join_names(rows, len(rows))}.")
    if not (tests["verdict"] == "better").any():
        found.insert(0, f"No row is significantly better than {baseline}.")
    return found
