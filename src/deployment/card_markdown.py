"""Markdown of a model card: tables, numbers, and text whose characters mean nothing else."""

import re
from collections.abc import Iterable, Sequence
from math import isnan

WORDS = {"auroc": "AUROC", "f1": "F1", "mae": "MAE", "rmse": "RMSE", "r2": "R2", "miou": "mIoU"}


def draw_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0
) -> list[str]:
    """Returns the lines of a table.

    Args:
        headings: A heading for each column.
        rows: The cells of each row.
        numbers: How many of the last columns hold numbers, which stand to the right.
    """
    rules = [":--"] * (len(headings) - numbers) + ["--:"] * numbers
    lines = [draw_row(map(escape, headings)), draw_row(rules)]
    lines += [draw_row(map(escape, row)) for row in rows]
    return lines


def draw_row(cells: Iterable[str]) -> str:
    """Returns the cells of a row."""
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    r"""Returns text whose characters have no meaning in Markdown: ``|`` becomes ``\|``."""
    # a name with a line break would end the row of a table
    return " ".join(re.sub(r"([\\`*_\[\]|<>#])", r"\\\1", text).split())


def format_number(value: float | None) -> str:
    """Returns a number with four digits; - where it is not defined."""
    if value is None or isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.5g}"


def count(number: int, word: str) -> str:
    """Returns a number of things, such as 1 row and 1,200 rows."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def name_metric(metric: str) -> str:
    """Returns a metric's name as people write it."""
    return WORDS.get(metric, metric.replace("_", " "))
