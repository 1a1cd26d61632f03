"""The report of a study on the command line: the work of ``python -m src.report``."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from src.analysis.comparison import Comparison
from src.analysis.report import make_report
from src.analysis.tables import list_general_notes, make_tables
from src.analysis.terminal import FoldedTable
from src.cli.flags import split_flags
from src.cli.help import asks_for_help, format_block
from src.cli.layers import ConfigError
from src.cli.terminal import remark
from src.errors import suggest_or_list

FLAGS = {
    "study FOLDER": "the folder of a study; it may stand alone, without --study",
    "tasks A,B": "tasks whose columns the main table has [all]",
    "metrics X,Y": "metrics that it shows [of each task the one that selects the weights]",
    "pareto A,B": "two tasks whose Pareto front is drawn [the first two]",
}
NAMES = [flag.partition(" ")[0] for flag in FLAGS]


def report_study(args: list[str]) -> None:
    """Makes the report of a study anew, and prints its main tables.

    Args:
        args: The command line after the command.

    Raises:
        UserError: There is no such study, a run folder is gone, or a name is unknown.
    """
    words = list(args)
    # the folder may stand alone, wherever flags are written --key value
    if words and not words[0].startswith("-"):
        words.insert(0, "--study")
    pairs = split_flags(words, several=False)
    if any(asks_for_help(key) for key, _ in pairs):
        print("usage: python -m src.report STUDY [--KEY VALUE ...]\n")
        print(format_block("flags", FLAGS))
        return

    given: dict[str, str] = {}
    for key, value in pairs:
        if key not in NAMES:
            raise ConfigError(f"--{key} is no flag of report: {suggest_or_list(key, NAMES)}")
        if not value:
            raise ConfigError(f"--{key} needs a value")
        if key in given:
            raise ConfigError(f"--{key} is there twice")
        given[key] = value
    if "study" not in given:
        raise ConfigError(
            "--study is missing: name the folder of a study, such as logs/studies/digits-balancing"
        )
    print_report(
        Path(given["study"]),
        tasks=split_names(given.get("tasks", "")),
        metrics=split_names(given.get("metrics", "")),
        pareto=split_names(given.get("pareto", "")),
    )


def print_report(
    folder: Path,
    tasks: Sequence[str] = (),
    metrics: Sequence[str] = (),
    pareto: Sequence[str] = (),
) -> Comparison:
    """Makes the report of a study, and prints its main tables and what must be known of it.

    Args:
        folder: The folder of the study.
        tasks: Tasks whose columns the main table has; all of them by default.
        metrics: Metrics that it shows; by default the ones that select the weights.
        pareto: The two tasks of the front; by default the first two.

    Returns:
        Every number of the report.

    Raises:
        UserError: There is no such study, a run folder is gone, or a name is unknown.
    """
    comparison = make_report(folder, tasks, metrics, pareto)
    console = Console()
    tables = make_tables(comparison)
    for table in tables:
        # chosen settings of each fold fill a screen; the files have them
        if table.label != "tuning":
            console.print(FoldedTable(table))
            if table.note:
                console.print(table.note, highlight=False, markup=False)
            console.print()
    for note in list_general_notes(comparison, tables):
        console.print(note, highlight=False, markup=False)
    for mark in comparison.marks:
        remark(mark)
    page = folder / "report.html"
    others = "report.md, report.tex, metrics.csv, metrics.parquet, figures"
    print(f"{page}; beside it: {others}", flush=True)
    return comparison


def split_names(text: str) -> list[str]:
    """Returns the names of a list such as income,hours or [income, hours]."""
    return [name for part in text.strip("[] ").split(",") if (name := part.strip())]
