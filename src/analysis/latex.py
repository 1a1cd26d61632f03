"""Tables of a report for papers: LaTeX with the package booktabs."""

import re

from src.analysis.comparison import Comparison
from src.analysis.tables import (
    NOTHING,
    Cell,
    Column,
    ReportTable,
    list_general_notes,
    make_tables,
)

MOST_COLUMNS = 6  # of a table; further ones follow in tables of their own
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "Δ": r"$\Delta$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "²": r"\textsuperscript{2}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def write_latex(comparison: Comparison) -> str:
    """Returns the tables of a report, each with a caption that says how it was made."""
    parts = ["% needs \\usepackage{booktabs}"]
    tables = make_tables(comparison)
    for table in tables:
        sentences = [f"{table.title}.", table.note]
        if table.label == "results":
            sentences += [*list_general_notes(comparison, tables), *comparison.marks]
        caption = " ".join(sentence for sentence in sentences if sentence)
        parts += draw_tables(table, caption, comparison.record["name"])
    return "\n\n".join(parts) + "\n"


def draw_tables(table: ReportTable, caption: str, study: str) -> list[str]:
    """Returns a table, in several pieces where it has many columns.

    Args:
        table: The table.
        caption: The caption of the first piece.
        study: The name of the study.
    """
    pieces = []
    word = re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-")
    for number, first in enumerate(range(0, len(table.columns), MOST_COLUMNS)):
        columns = table.columns[first : first + MOST_COLUMNS]
        words = caption if number == 0 else f"{table.title}, continued."
        label = f"tab:{word}-{table.label}" + (f"-{number + 1}" if number else "")
        pieces.append(draw_piece(table.rows, columns, words, label))
    return pieces


def draw_piece(rows: list[str], columns: list[Column], caption: str, label: str) -> str:
    """Returns one table environment."""
    kinds = "".join("r" if column.is_number else "l" for column in columns)
    depth = max(len(column.heading) for column in columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\small",
        f"\\caption{{{escape(caption)}}}",
        f"\\label{{{label}}}",
        f"\\begin{{tabular}}{{l{kinds}}}",
        r"\toprule",
    ]
    for line in range(depth):
        cells = [column.heading[line] if line < len(column.heading) else "" for column in columns]
        lines.append(draw_line(["", *map(escape, cells)]))
    lines.append(r"\midrule")
    for row, name in enumerate(rows):
        cells = [draw_cell(column.cells[row]) for column in columns]
        lines.append(draw_line([escape(name), *cells]))
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines)


def draw_line(cells: list[str]) -> str:
    """Returns the cells of a line."""
    return f"{' & '.join(cells)} \\\\"


def draw_cell(cell: Cell) -> str:
    """Returns a cell, bold where it is the best; a minus is one, not a hyphen."""
    text = re.sub(r"^-(?=\d)", "$-$", escape(cell.text))
    text = "--" if cell.text == NOTHING else text
    mark = escape(cell.mark)
    return f"\\textbf{{{text}}}{mark}" if cell.bold else text + mark


def escape(text: str) -> str:
    """Returns text whose characters have no meaning in LaTeX."""
    return "".join(SPECIAL.get(character, character) for character in text)
