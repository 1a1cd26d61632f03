"""The tables of a report's page: those of the report, with links to runs and keys that sort."""

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from src.analysis.comparison import Comparison
from src.analysis.results import list_trials, name_place
from src.analysis.tables import (
    NOTHING,
    Cell,
    Column,
    ReportTable,
    make_tables,
    tabulate_results,
)

SIGNS = str.maketrans({"-": "\N{MINUS SIGN}"})
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class PageCell:
    """A cell of a table on the page.

    Attributes:
        text: Its text.
        key: The number or the text that sorts it; None comes last in either direction.
        link: Where its text leads.
        is_best: Whether it is the best of its column.
        mark: † or ‡; "" for neither.
        is_number: Whether it stands at the right.
    """

    text: str
    key: float | str | None = None
    link: str | None = None
    is_best: bool = False
    mark: str = ""
    is_number: bool = False


@dataclass(frozen=True)
class PageColumn:
    """A column of a table on the page.

    Attributes:
        name: Its heading.
        group: The heading above it and its neighbours of one group; "" for none.
        is_number: Whether it has numbers.
        rises: Whether sorting begins with the smallest.
    """

    name: str
    group: str
    is_number: bool
    rises: bool


@dataclass(frozen=True)
class PageTable:
    """A table on the page; the first cell of each line heads it.

    Attributes:
        name: Its name in links.
        caption: Its caption.
        columns: The columns, that of the lines' headings first.
        lines: The cells, line by line.
    """

    name: str
    caption: str
    columns: list[PageColumn]
    lines: list[list[PageCell]]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The headings above columns: (heading, number of neighbouring columns)."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and column.group and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found


@dataclass(frozen=True)
class RunLine:
    """A trial behind a replicate.

    Attributes:
        place: Its seed, and its fold where there is one.
        tasks: The tasks for which its metrics count.
        values: Its test values, one for each shown column.
        run: The run folder, relative to the root; None where there is none.
        link: The link to it.
        ending: How it has ended, where it has not finished.
    """

    place: str
    tasks: str
    values: list[str]
    run: str | None
    link: str | None
    ending: str


@dataclass
class Links:
    """Links of a page to the run folders behind its numbers.

    Attributes:
        comparison: What the page shows.
        start: The folder of the page.
        rows: {row: its place}.
        runs: {row: the run folders that its numbers come from}.
    """

    comparison: Comparison
    start: Path
    rows: dict[str, int] = field(init=False)
    runs: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        names = [row["name"] for row in self.comparison.record["rows"]]
        self.rows = {name: place for place, name in enumerate(names)}
        runs = self.comparison.values.groupby("row", sort=False)["run"].unique()
        self.runs = {str(row): [str(run) for run in found] for row, found in runs.items()}

    def find_run(self, run: str) -> str:
        """Returns the link to a run folder, relative to the page."""
        path = os.path.relpath((self.comparison.root / run).resolve(), self.start.resolve())
        return f"{quote(Path(path).as_posix())}/"

    def find_row(self, row: str) -> str | None:
        """Returns the link behind a row's numbers: its run folder, or the list of several."""
        runs = self.runs.get(row, [])
        if len(runs) == 1:
            return self.find_run(runs[0])
        return f"#runs-{self.rows[row]}" if runs else None


def list_tables(comparison: Comparison, links: Links) -> list[PageTable]:
    """Returns all tables of the page but the list of runs, the main one first."""
    tables = []
    for table in make_tables(comparison):
        if table.label == "results":
            table.columns.extend(tell_verdicts(comparison, table.rows))
        tables.append(link_table(table, links))
    every = [
        (task, metric)
        for task, its in comparison.record["tasks"].items()
        for metric in its["metrics"]
    ]
    if not set(every) <= set(comparison.shown):
        whole = tabulate_results(comparison, every, with_summary=False)
        whole = ReportTable("All metrics on test rows", "metrics", whole.rows, whole.columns)
        tables.insert(1, link_table(whole, links))
    if any(row["candidates"] for row in comparison.record["rows"]):
        tables.append(list_candidates(comparison, links))
    return tables


def tell_verdicts(comparison: Comparison, rows: Sequence[str]) -> list[Column]:
    """Returns a column of verdicts in words; none where nothing was tested."""
    verdicts = dict(zip(comparison.tests["row"], comparison.tests["verdict"], strict=True))
    if not verdicts:
        return []
    cells = [Cell(verdicts.get(row, NOTHING)) for row in rows]
    return [Column((f"against {comparison.record['baseline']}",), cells, is_number=False)]


def link_table(table: ReportTable, links: Links) -> PageTable:
    """Returns a table of the report for the page."""
    tasks = links.comparison.record["tasks"]
    columns = [PageColumn("row", "", False, True)]
    columns += [head_column(column, tasks) for column in table.columns]
    lines = []
    for place, row in enumerate(table.rows):
        line = [PageCell(row, row)]
        for column in table.columns:
            link = links.find_row(row) if column.is_number else None
            line.append(link_cell(column.cells[place], column.is_number, link))
        lines.append(line)
    return PageTable(table.label, table.title, columns, lines)


def head_column(column: Column, tasks: Collection[str]) -> PageColumn:
    """Returns the heading of a column, below its task if it has one.

    One with an arrow downwards is sorted upwards first.
    """
    *group, name = column.heading
    task = group[0] if group and group[0] in tasks else ""
    words = name if task else ", ".join([*group, name])
    rises = not column.is_number or "↓" in name or name.startswith("p")
    return PageColumn(words.replace(", ↓", " ↓"), task, column.is_number, rises)


def link_cell(cell: Cell, is_number: bool, link: str | None) -> PageCell:
    """Returns a cell with its link; one without content has neither key nor link."""
    if cell.text == NOTHING:
        return PageCell(DASH, is_number=is_number)
    # what has no number is sorted by its text
    key = cell.text if math.isnan(cell.key) else float(cell.key)
    text = cell.text.translate(SIGNS) if is_number else cell.text
    return PageCell(text, key, link, cell.bold, cell.mark, is_number)


def list_candidates(comparison: Comparison, links: Links) -> PageTable:
    """Returns the table of all settings that were tried, with the tasks they were chosen for."""
    tuning = comparison.record["tuning"]
    score = tuning["by"] if tuning else "score"
    folds = comparison.record["folds"] is not None
    columns = [
        PageColumn("row", "", False, True),
        PageColumn("settings", "", False, True),
        *([PageColumn("fold", "", True, True)] if folds else []),
        PageColumn(score, "", True, False),
        PageColumn("chosen for", "", False, True),
    ]
    tasks = list(comparison.record["tasks"])
    lines = []
    for row in comparison.record["rows"]:
        for candidate in row["candidates"]:
            trial = comparison.record["trials"].get(candidate["trial"])
            run = trial["run"] if trial else None
            number = candidate["score"]
            text = trial["status"] if trial and number is None else DASH
            if number is not None:
                text = f"{number:.4f}".translate(SIGNS)
            chosen = ", ".join(candidate["chosen"])
            if candidate["chosen"] == tasks:
                chosen = "all tasks"
            settings = format_settings_whole(candidate["settings"])
            line = [
                PageCell(row["name"], row["name"]),
                PageCell(settings, settings),
                PageCell(text, number, links.find_run(run) if run else None, is_number=True),
                PageCell(chosen, chosen or None),
            ]
            if folds:
                fold = candidate["fold"]
                line.insert(2, PageCell(DASH if fold is None else str(fold), fold, is_number=True))
            lines.append(line)
    return PageTable(
        "candidates", "All settings that were tried on validation rows", columns, lines
    )


def format_settings_whole(settings: dict[str, object]) -> str:
    """Returns settings with their whole keys, one after another."""
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def list_runs(comparison: Comparison, links: Links) -> list[tuple[str, list[RunLine]]]:
    """Returns the runs behind each row: (row, one line for each trial of its replicates)."""
    test = comparison.values[comparison.values["split"] == "test"]
    found = {}
    for value in test.to_dict("records"):
        found[value["run"], value["task"], value["metric"]] = value["value"]
    tasks = list(comparison.record["tasks"])

    listed = []
    for row in comparison.record["rows"]:
        lines = []
        for replicate in row["replicates"]:
            place = name_place(replicate["seed"], replicate["fold"])
            for key in list_trials(replicate):
                own = [task for task, trial in replicate["trials"].items() if trial == key]
                trial = comparison.record["trials"].get(key)
                run = trial["run"] if trial else None
                shown = []
                for task, metric in comparison.shown:
                    number = found.get((run, task, metric), math.nan) if task in own else math.nan
                    shown.append("" if math.isnan(number) else f"{number:.5g}".translate(SIGNS))
                ending = ""
                if trial and trial["status"] != "finished":
                    ending = trial["status"] + (f": {trial['error']}" if trial["error"] else "")
                words = "all tasks" if own == tasks else ", ".join(own) or "a member"
                link = links.find_run(run) if run else None
                lines.append(RunLine(place, words, shown, run, link, ending))
        listed.append((row["name"], lines))
    return listed
