"""Tables of groups, as a terminal shows them."""

from collections.abc import Sequence

from src.analysis.fairness.gaps import Gap
from src.analysis.fairness.groups import name_group
from src.analysis.fairness.measures import GroupRow
from src.analysis.tables import Cell, Column, ReportTable
from src.monitoring.table import HEADINGS

NOTHING = "-"


def tabulate_groups(rows: Sequence[GroupRow], gaps: Sequence[Gap]) -> list[ReportTable]:
    """Returns a table for each task and each choice of columns, of groups x metrics.

    Args:
        rows: The metrics by group.
        gaps: Their gaps.
    """
    tables = []
    for task in dict.fromkeys(row.task for row in rows):
        own = [row for row in rows if row.task == task]
        whole = [row for row in own if not row.groups]
        for columns in dict.fromkeys(tuple(row.groups) for row in own if row.groups):
            inside = [row for row in own if tuple(row.groups) == columns]
            of_task = [gap for gap in gaps if gap.task == task and gap.columns == columns]
            tables.append(tabulate_task(task, columns, [*whole, *inside], of_task))
    return tables


def tabulate_task(
    task: str, columns: Sequence[str], rows: Sequence[GroupRow], gaps: Sequence[Gap]
) -> ReportTable:
    """Returns a task's metrics by group, with the gaps below.

    Args:
        task: The task.
        columns: The columns that tell the groups.
        rows: All rows, then the groups.
        gaps: The gaps of these metrics.
    """
    names = list(dict.fromkeys(name_group(row.groups) for row in rows))
    metrics = list(dict.fromkeys(row.metric for row in rows))
    by_key = {(name_group(row.groups), row.metric): row for row in rows}
    gap_of = {gap.metric: gap for gap in gaps}
    counts = [Cell(str(by_key[name, metrics[0]].n)) for name in names]
    blank = [Cell(""), Cell("")]
    shown = [Column(("", "n"), [*counts, *blank])]
    for metric in metrics:
        gap = gap_of[metric]
        cells = [write_cell(by_key[name, metric], name == gap.worst) for name in names]
        ends = [write_number(gap.gap), write_number(gap.ratio)]
        heading = HEADINGS.get(metric, metric.replace("_", " "))
        shown.append(Column((heading, ""), [*cells, *map(Cell, ends)]))
    title = f"\n{task} by {' and '.join(columns)}"
    return ReportTable(title, "groups", [*names, "gap", "ratio"], shown)


def write_cell(row: GroupRow, is_worst: bool) -> Cell:
    """Returns a value with its interval, and a star at the worst: 0.845 [0.83, 0.86]*."""
    if row.value is None:
        return Cell(NOTHING)
    mark = "*" if is_worst else " "
    if row.low is None or row.high is None:
        return Cell(write_number(row.value), mark=mark)
    return Cell(f"{write_number(row.value)} [{row.low:.3g}, {row.high:.3g}]", mark=mark)


def write_number(value: float | None) -> str:
    """Returns a number with four digits; '-' where there is none."""
    return NOTHING if value is None else f"{value:.4g}"


def list_notes(rows: Sequence[GroupRow]) -> list[str]:
    """Returns one line for each reason why groups have no value."""
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        if row.note is not None:
            by_group = groups.setdefault((row.task, row.note), {})
            by_group.setdefault(name_group(row.groups), []).append(row.metric)
    lines = []
    for (task, note), by_group in groups.items():
        metrics = list(dict.fromkeys(metric for own in by_group.values() for metric in own))
        total = len({row.metric for row in rows if row.task == task})
        what = "no value" if len(metrics) == total else f"no {', '.join(metrics)}"
        lines.append(f"{task}, {'; '.join(by_group)}: {what} ({note})")
    return lines
