"""The tables of a report as text, for terminals, Markdown and LaTeX alike.

A number is the mean, and half of its 95 % interval behind it. In each column the best mean is bold,
which does not say that it is significantly better; that is what † and ‡ say.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, isnan, log10, nan

import pandas as pd

from src.analysis.comparison import Comparison
from src.analysis.display import format_seconds
from src.analysis.notes import BEST, describe_costs

NOTHING = "-"
MARKS = {"better": "†", "worse": "‡"}


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: Its text.
        bold: Whether it holds the best mean of its column.
        mark: † or ‡ where a test says so; "" otherwise.
        key: The number that sorts it; NaN where its text does.
    """

    text: str
    bold: bool = False
    mark: str = ""
    key: float = nan


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: Its heading; that of a metric has two parts, the task and the metric.
        cells: A cell for each row.
        is_number: Whether it holds numbers, which are aligned on the right.
    """

    heading: tuple[str, ...]
    cells: list[Cell]
    is_number: bool = True


@dataclass(frozen=True)
class ReportTable:
    """A table whose first column names the rows of the study.

    Attributes:
        title: Its title.
        label: A word for it, for references in LaTeX.
        rows: Names of the rows.
        columns: The others.
        note: A sentence that belongs to it alone; "" for none.
    """

    title: str
    label: str
    rows: list[str]
    columns: list[Column]
    note: str = ""


def make_tables(comparison: Comparison) -> list[ReportTable]:
    """Returns the tables of a report: results, tests, costs, and the chosen settings."""
    tables = [tabulate_results(comparison, comparison.shown)]
    if len(comparison.tests):
        tables.append(tabulate_tests(comparison))
    tables.append(tabulate_costs(comparison))
    if len(comparison.tuning):
        tables.append(tabulate_tuning(comparison))
    return tables


def list_general_notes(comparison: Comparison, tables: Sequence[ReportTable]) -> list[str]:
    """Returns the notes of a report that belong to no table alone."""
    elsewhere = {table.note for table in tables}
    return [note for note in comparison.notes if note not in elsewhere]


def tabulate_results(
    comparison: Comparison, shown: Sequence[tuple[str, str]], with_summary: bool = True
) -> ReportTable:
    """Returns test metrics by row, and behind them delta and the mean rank.

    Args:
        comparison: The comparison.
        shown: (task, metric) of the columns.
        with_summary: Whether delta and rank stand behind them.
    """
    names = [row["name"] for row in comparison.record["rows"]]
    columns = []
    for task, metric in shown:
        sign = comparison.record["tasks"][task]["metrics"][metric]
        which = comparison.summary["task"] == task
        own = comparison.summary[which & (comparison.summary["metric"] == metric)]
        arrow = "↑" if sign > 0 else "↓"
        columns.append(make_means((task, f"{metric} {arrow}"), own, sign))
    if with_summary:
        columns += summarise_rows(comparison)
    title = f"Test metrics of {comparison.record['name']}"
    return ReportTable(title, "results", names, columns, BEST)


def summarise_rows(comparison: Comparison) -> list[Column]:
    """Returns the columns of delta, in both conventions, and of the mean rank."""
    columns = []
    verdicts = dict(zip(comparison.tests["row"], comparison.tests["verdict"], strict=True))
    for convention in ("tasks", "metrics"):
        own = comparison.deltas[comparison.deltas["convention"] == convention]
        if len(own):
            column = make_means((f"Δ {convention}", "% ↑"), own, 1, signed=True)
            if convention == "tasks":
                column = mark_verdicts(column, list(own["row"]), verdicts)
            columns.append(column)
    ranks = comparison.ranks["rank"]
    texts = [NOTHING if isnan(rank) else f"{rank:.2f}" for rank in ranks]
    columns.append(Column(("rank", "↓"), embolden(texts, list(ranks), -1)))
    return columns


def mark_verdicts(column: Column, names: Sequence[str], verdicts: dict[str, str]) -> Column:
    """Returns a column with † and ‡ behind the rows that a test tells from the baseline."""
    cells = []
    for name, cell in zip(names, column.cells, strict=True):
        mark = MARKS.get(verdicts.get(name, ""), "")
        cells.append(replace(cell, mark=mark))
    return Column(column.heading, cells)


def tabulate_tests(comparison: Comparison) -> ReportTable:
    """Returns each row's difference from the baseline, with the verdict in words."""
    tests = comparison.tests
    differences = tests.rename(columns={"difference": "mean"})
    columns = [
        make_means(("difference", "%"), differences, 0, signed=True),
        Column(("pairs",), [Cell(str(n), key=n) for n in tests["n"]]),
        Column(("p",), [Cell(format_p(p), key=p) for p in tests["p"]]),
        Column(("p Holm",), [Cell(format_p(p), key=p) for p in tests["p_holm"]]),
        Column(("verdict",), [Cell(words) for words in tests["verdict"]], is_number=False),
    ]
    title = f"Against {comparison.record['baseline']}, in mean improvement over tasks"
    return ReportTable(title, "tests", list(tests["row"]), columns)


def tabulate_costs(comparison: Comparison) -> ReportTable:
    """Returns what a replicate of each row costs."""
    costs = comparison.costs
    columns = [
        Column(("time",), [Cell(format_time(value), key=value) for value in costs["seconds"]]),
        Column(("steps",), [Cell(format_count(value), key=value) for value in costs["steps"]]),
        Column(("memory",), [Cell(format_memory(value), key=value) for value in costs["memory"]]),
    ]
    if comparison.cost_unit is not None:
        cells = [Cell(format_ratio(value), key=value) for value in costs["relative"]]
        columns.append(Column(("relative time",), cells))
    if costs["tuning_seconds"].notna().any():
        cells = [Cell(format_time(value), key=value) for value in costs["tuning_seconds"]]
        columns.append(Column(("tuning",), cells))
    note = describe_costs(comparison.cost_unit)
    return ReportTable("Cost of a replicate", "costs", list(costs["row"]), columns, note)


def tabulate_tuning(comparison: Comparison) -> ReportTable:
    """Returns the settings that were chosen, and among how many."""
    tuning = comparison.tuning
    columns = []
    if tuning["fold"].notna().any():
        columns.append(Column(("fold",), [Cell(str(fold)) for fold in tuning["fold"]]))
    tasks = [NOTHING if is_for_all(comparison, text) else text for text in tuning["tasks"]]
    if any(text != NOTHING for text in tasks):
        columns.append(Column(("for",), [Cell(text) for text in tasks], is_number=False))
    columns.append(Column(("tried",), [Cell(str(count), key=count) for count in tuning["tried"]]))
    columns.append(Column(("failed",), [Cell(str(count), key=count) for count in tuning["failed"]]))
    texts = [format_settings(text) for text in tuning["chosen"]]
    columns.append(Column(("chosen",), [Cell(text) for text in texts], is_number=False))
    return ReportTable("Settings chosen on validation rows", "tuning", list(tuning["row"]), columns)


def is_for_all(comparison: Comparison, tasks: str) -> bool:
    """Returns whether settings were chosen for all tasks at once."""
    return tasks == ", ".join(comparison.record["tasks"])


# -- cells -----------------------------------------------------------------------------------------
def make_means(
    heading: tuple[str, ...], estimates: pd.DataFrame, sign: int, signed: bool = False
) -> Column:
    """Returns a column of means with half of their intervals, all with the same decimals.

    Args:
        heading: The heading.
        estimates: mean, low and high of each row.
        sign: 1 where the largest mean is the best, -1 where the smallest is, 0 for none.
        signed: Whether a gain has a plus.
    """
    means = list(estimates["mean"])
    halves = list((estimates["high"] - estimates["low"]) / 2)
    decimals = choose_decimals(means, halves)
    texts = []
    for mean, half in zip(means, halves, strict=True):
        texts.append(format_mean(mean, half, decimals, signed))
    return Column(heading, embolden(texts, means, sign))


def embolden(texts: Sequence[str], values: Sequence[float], sign: int) -> list[Cell]:
    """Returns cells, the best of several bold; all of them where several are equally good.

    Args:
        texts: The texts.
        values: The numbers behind them.
        sign: 1 where the largest is the best, -1 where the smallest is, 0 for none.
    """
    known = [sign * value for value in values if not isnan(value)]
    if sign == 0 or len(known) < 2:
        return [Cell(text, key=value) for text, value in zip(texts, values, strict=True)]
    best = max(known)
    cells = []
    for text, value in zip(texts, values, strict=True):
        cells.append(Cell(text, bold=sign * value == best, key=value))
    return cells


def choose_decimals(means: Sequence[float], halves: Sequence[float]) -> int:
    """Returns the decimals of a column, from 0 to 5.

    They give two digits of the middle interval, and a third where the smallest one needs it.
    Without intervals, they give four digits of the largest mean.
    """
    known = sorted(half for half in halves if half > 0)
    if known:
        middle = 1 - floor(log10(known[len(known) // 2]))
        smallest = -floor(log10(known[0]))
        return min(5, max(0, middle, min(middle + 1, smallest)))
    largest = max((abs(mean) for mean in means if not isnan(mean)), default=0.0)
    return min(5, max(0, 3 - floor(log10(largest)))) if largest else 4


def format_mean(mean: float, half: float, decimals: int, signed: bool = False) -> str:
    """Formats a mean with half of its interval, such as 0.951 ± 0.012."""
    if isnan(mean):
        return NOTHING
    text = f"{mean:+.{decimals}f}" if signed else f"{mean:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text if isnan(half) else f"{text} ± {half:.{decimals}f}"


def format_p(p: float) -> str:
    """Formats a p-value."""
    if isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_time(seconds: float) -> str:
    """Formats seconds."""
    if isnan(seconds):
        return NOTHING
    return f"{seconds:.1f} s" if seconds < 10 else format_seconds(seconds)


def format_count(value: float) -> str:
    """Formats a mean number of steps."""
    return NOTHING if isnan(value) else f"{value:,.0f}"


def format_memory(value: float) -> str:
    """Formats bytes."""
    if isnan(value):
        return NOTHING
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def format_ratio(value: float) -> str:
    """Formats how many times as long something takes."""
    return NOTHING if isnan(value) else f"{value:.2f}"


def format_settings(text: str) -> str:
    """Formats JSON text of settings as flags without their dashes: lr 0.003, ..."""
    settings = json.loads(text)
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in settings.items())
