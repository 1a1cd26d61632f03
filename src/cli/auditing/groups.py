"""The audit of a run's groups: every metric of every task for each group of rows."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from src.analysis.charts.chart import save_chart
from src.analysis.charts.groups import draw_groups
from src.analysis.fairness.gaps import DEMOGRAPHIC_PARITY, EQUALIZED_ODDS, Gap, find_gaps
from src.analysis.fairness.measures import GroupRow, measure_groups
from src.analysis.fairness.thresholds import CONSTRAINTS, OBJECTIVES
from src.analysis.terminal import FoldedTable
from src.cli.auditing.call import AuditCall
from src.cli.auditing.groups_rows import load_task_rows, read_columns
from src.cli.auditing.groups_tables import list_notes, tabulate_groups
from src.cli.auditing.groups_thresholds import fit_run_thresholds
from src.cli.flags import Flag
from src.cli.progress_bar import show_progress
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import to_json
from src.tasks import Task

GROUPS: tuple[Flag, ...] = (
    Flag("groups", list[str] | None, None, "Columns of groups of people that are compared."),
    Flag(
        "group_bins",
        int | None,
        None,
        "Ranges that a column of numbers is cut into; four, where it has many numbers.",
    ),
    Flag("group_draws", int, 100, "Draws of a group's rows behind each 95 % interval."),
    Flag(
        "thresholds",
        str | None,
        None,
        f"Fit thresholds by group on validation rows, under {' or '.join(CONSTRAINTS)}; the run "
        "keeps them, and predict and evaluate decide by them.",
    ),
    Flag(
        "threshold_objective",
        str,
        "accuracy",
        f"What thresholds by group make as high as they can: {' or '.join(OBJECTIVES)}.",
    ),
    Flag(
        "threshold_task",
        str | None,
        None,
        "The binary task that gets thresholds by group; all binary tasks unless told otherwise.",
    ),
)
# a flag, and the one without which it has no effect
NEEDS = {
    "group_bins": "groups",
    "group_draws": "groups",
    "thresholds": "groups",
    "threshold_objective": "thresholds",
    "threshold_task": "thresholds",
    "tradeoff": "groups",
    "tradeoff_score": "tradeoff",
    "tradeoff_gap": "tradeoff",
}
EXAMPLES = {"groups": "'[sex]'", "thresholds": "EqualizedOdds", "tradeoff": "income"}
FEWEST_DRAWS = 20
SHOWN = 12  # notes on missing values
NOTE = (
    "brackets hold the middle 95 % over draws of the group's rows; gap: the largest minus the "
    "smallest value; ratio: the smallest divided by the largest; *: the worst group, of selection "
    "rates the lowest"
)


def check_group_flags(given: Collection[str]) -> None:
    """Refuses flags of groups that have no effect without another one.

    Args:
        given: The names of the flags of the call.

    Raises:
        UserError: There is one.
    """
    for flag, needed in NEEDS.items():
        if flag in given and needed not in given:
            raise UserError(f"--{flag} needs --{needed}, such as --{needed} {EXAMPLES[needed]}")


def audit_groups(call: AuditCall) -> None:
    """Measures each task in each group, prints tables, and writes groups.json and a picture.

    Raises:
        UserError: The data have no such columns, or a setting is wrong.
    """
    config = call.config
    draws = config["group_draws"]
    if draws < FEWEST_DRAWS:
        raise UserError(f"--group_draws is {draws}; an interval needs at least {FEWEST_DRAWS}")
    columns = read_columns(call.run.data, call.split, config["groups"], config["group_bins"])
    if config["thresholds"] is not None:
        fit_run_thresholds(call, columns)

    groups = columns.list(call.run.data, call.split)
    tasks = load_task_rows(call.run, call.split)
    with show_progress("groups", len(groups) * len(tasks)) as advance:
        rows = measure_groups(
            list(tasks.values()), groups, draws, config["seed_everything"], advance
        )
    gaps = find_gaps(rows, call.run.tasks)
    show_groups(rows, gaps)
    write_groups(rows, gaps, call.run.tasks, call.folder)


def show_groups(rows: Sequence[GroupRow], gaps: Sequence[Gap]) -> None:
    """Prints tables of groups x metrics, the gaps of decisions, and why values are missing."""
    console = Console()
    for table in tabulate_groups(rows, gaps):
        console.print(FoldedTable(table), crop=False)
    for gap in gaps:
        kind = gap.metric.partition(".")[0]
        if kind in (DEMOGRAPHIC_PARITY, EQUALIZED_ODDS) and gap.gap is not None:
            words = gap.metric.replace("_", " ", 1)
            by = " and ".join(gap.columns)
            print(f"{gap.task} by {by}: {words} difference {gap.gap:.4f}", flush=True)
    notes = list_notes(rows)
    for line in notes[:SHOWN]:
        print(line, flush=True)
    if len(notes) > SHOWN:
        print(f"and {len(notes) - SHOWN} more notes of this kind in groups.json", flush=True)
    print(NOTE, flush=True)


def write_groups(
    rows: Sequence[GroupRow], gaps: Sequence[Gap], tasks: Mapping[str, Task], folder: Path
) -> None:
    """Writes groups.json, a picture, and the picture for TensorBoard.

    Args:
        rows: The metrics by group.
        gaps: Their gaps.
        tasks: {name: task}.
        folder: The folder of the results.
    """
    content = {
        "rows": [vars(row) for row in rows],
        "gaps": [{**vars(gap), "columns": list(gap.columns)} for gap in gaps],
    }
    write_atomically(folder / "groups.json", lambda file: file.write(to_json(content)))
    chart = draw_groups(rows, {name: task.monitor for name, task in tasks.items()})
    if chart.figure is None:
        return
    save_chart(chart, folder)
    with SummaryWriter(str(folder)) as writer:
        writer.add_figure("groups", chart.figure, close=False)
