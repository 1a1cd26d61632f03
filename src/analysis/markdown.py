"""A report as Markdown: what a reader must know, the tables, the runs, and how they were made."""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import quote

import pandas as pd

from src.analysis.comparison import Comparison
from src.analysis.results import name_place
from src.analysis.tables import (
    Cell,
    ReportTable,
    list_general_notes,
    make_tables,
    tabulate_results,
)


def write_markdown(comparison: Comparison) -> str:
    """Returns the report as Markdown."""
    record = comparison.record
    parts = [
        f"# {escape(record['name'])}",
        f"`{record['command']}`, {record['started']}",
    ]
    if comparison.marks:
        marks = [f"> - {escape(mark)}" for mark in comparison.marks]
        parts.append("\n".join(["> **To be known before reading**", ">", *marks]))
    tables = make_tables(comparison)
    parts += [draw_table(table) for table in tables]
    notes = list_general_notes(comparison, tables)
    parts.append(
        "\n".join(["## How the numbers were made", "", *(f"- {escape(note)}" for note in notes)])
    )
    if comparison.critical is not None:
        parts.append(escape(comparison.critical.meaning))
    for task, its in record["tasks"].items():
        columns = [(task, metric) for metric in its["metrics"]]
        table = tabulate_results(comparison, columns, with_summary=False)
        parts.append(draw_table(replace(table, title=f"All metrics of {task}", note="")))
    parts.append(list_runs(comparison))
    return "\n\n".join(parts) + "\n"


def draw_table(table: ReportTable) -> str:
    """Returns a table with its title."""
    headings = ["row", *(" ".join(column.heading) for column in table.columns)]
    rules = [":--", *("--:" if column.is_number else ":--" for column in table.columns)]
    lines = [f"## {escape(table.title)}", "", draw_line(map(escape, headings))]
    lines.append(draw_line(rules))
    for row, name in enumerate(table.rows):
        cells = [draw_cell(column.cells[row]) for column in table.columns]
        lines.append(draw_line([escape(name), *cells]))
    if table.note:
        lines += ["", escape(table.note)]
    return "\n".join(lines)


def draw_line(cells: Iterable[str]) -> str:
    """Returns the cells of a line."""
    return f"| {' | '.join(cells)} |"


def draw_cell(cell: Cell) -> str:
    """Returns a cell, bold where it is the best."""
    text = escape(cell.text)
    return f"**{text}**{cell.mark}" if cell.bold else text + cell.mark


def list_runs(comparison: Comparison) -> str:
    """Returns a table of the run folders behind each row, as links."""
    lines = ["## Runs", "", draw_line(["row", "run folders"]), draw_line([":--", ":--"])]
    places = comparison.values[["row", "seed", "fold", "run"]].drop_duplicates()
    for row in comparison.record["rows"]:
        links = []
        for _, seed, fold, run in places[places["row"] == row["name"]].itertuples(index=False):
            words = name_place(seed, None if pd.isna(fold) else fold)
            path = os.path.relpath(comparison.root / run, comparison.folder.resolve())
            links.append(f"[{words}]({quote(path)})")
        lines.append(draw_line([escape(row["name"]), ", ".join(links)]))
    return "\n".join(lines)


def escape(text: str) -> str:
    r"""Returns text whose characters have no meaning in Markdown: ``|`` becomes ``\|``."""
    plain = re.sub(r"([\\`*_\[\]|<>#])", r"\\\1", text)
    return " ".join(plain.split())
