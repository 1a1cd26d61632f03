"""Thresholds by group: fitted on a run's validation rows, and kept in the run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast, get_args

import torch
from rich.console import Console

from src.analysis.fairness.gaps import DEMOGRAPHIC_PARITY, EQUALIZED_ODDS, find_gaps
from src.analysis.fairness.groups import Group, list_groups, name_rows
from src.analysis.fairness.measures import FEWEST, TaskRows, measure_groups
from src.analysis.fairness.thresholds import OBJECTIVES, fit_rules
from src.analysis.tables import Cell, Column, ReportTable
from src.analysis.terminal import FoldedTable
from src.cli.auditing.call import AuditCall
from src.cli.auditing.groups_rows import GroupColumns, load_task_rows
from src.cli.group_decisions import GroupDecisions, describe_calibrator, read_mark
from src.cli.terminal import remark
from src.data import Split
from src.errors import UserError, suggest_or_list
from src.tasks import BinaryClassification, is_labelled
from src.tasks.binary import probabilities
from src.tasks.group_thresholds import (
    NAME,
    Constraint,
    GroupThresholds,
    read_group_thresholds,
    write_group_thresholds,
)

SHOWN = ("accuracy", "f1", "selection_rate")
GAPS = (DEMOGRAPHIC_PARITY, EQUALIZED_ODDS)


def fit_run_thresholds(call: AuditCall, columns: GroupColumns) -> None:
    """Fits thresholds by group, keeps them in the run, and prints what they change.

    Args:
        call: The call of the command.
        columns: The columns of groups.

    Raises:
        UserError: A setting is wrong, or validation rows do not tell thresholds.
    """
    constraint, objective = check_settings(call)
    tasks = choose_tasks(call)
    run = call.run
    validation = load_task_rows(run, "val", by_group=False)
    labels = columns.label(run.data, "val")
    groups = name_rows(list(labels), list(labels.values()))
    found = {}
    for name in tasks:
        found[name] = fit_task(call, columns, constraint, objective, validation[name], groups)

    splits: dict[Split, dict[str, TaskRows]] = {"val": validation}
    if len(run.data.split("test")):
        splits["test"] = load_task_rows(run, "test", by_group=False)
    path = run.run.path / NAME
    # the tasks that are not fitted now keep theirs
    write_group_thresholds(path, {**read_group_thresholds(path), **found})
    for table in compare_decisions(call, columns, splits, found):
        Console().print(FoldedTable(table), crop=False)
    print(f"thresholds by group: {path}; predict and evaluate decide by them", flush=True)


def check_settings(call: AuditCall) -> tuple[Constraint, str]:
    """Returns the constraint and the objective.

    Raises:
        UserError: There is no such thing, or the rows are none of the run's.
    """
    constraint = call.config["thresholds"]
    if constraint not in get_args(Constraint):
        hint = suggest_or_list(constraint, get_args(Constraint))
        raise UserError(f"--thresholds is '{constraint}'; {hint}")
    objective = call.config["threshold_objective"]
    if objective not in OBJECTIVES:
        hint = suggest_or_list(objective, OBJECTIVES)
        raise UserError(f"--threshold_objective is '{objective}'; {hint}")
    if call.run.data.is_new:
        raise UserError(
            "--thresholds fits on the run's validation rows: leave the flags that name new rows out"
        )
    return cast(Constraint, constraint), objective


def choose_tasks(call: AuditCall) -> list[str]:
    """Returns the binary tasks that get thresholds.

    Raises:
        UserError: The run has none, or none of that name.
    """
    kinds = call.run.tasks
    binary = [name for name, task in kinds.items() if isinstance(task, BinaryClassification)]
    asked = call.config["threshold_task"]
    if not binary:
        raise UserError("--thresholds is for binary tasks, and the run has none")
    if asked is None:
        return binary
    if asked not in kinds:
        raise UserError(f"--threshold_task is '{asked}'; {suggest_or_list(asked, binary)}")
    if asked not in binary:
        raise UserError(
            f"--threshold_task is '{asked}', a {type(kinds[asked]).__name__}; thresholds by group "
            f"are for binary tasks: {', '.join(binary)}"
        )
    return [asked]


def fit_task(
    call: AuditCall,
    columns: GroupColumns,
    constraint: Constraint,
    objective: str,
    own: TaskRows,
    groups: list[str],
) -> GroupThresholds:
    """Returns the thresholds of one task.

    Args:
        call: The call of the command.
        columns: The columns of groups.
        constraint: What must be equal between groups.
        objective: What is as high as it can be.
        own: The task on validation rows.
        groups: The group of each of these rows.
    """
    known = is_labelled(own.targets)
    if own.weights is not None:
        remark(f"thresholds of {own.name} by group count all rows alike: fairlearn weighs none")
    labelled = [group for group, kept in zip(groups, known.tolist(), strict=True) if kept]
    for group in sorted(set(labelled)):
        count = labelled.count(group)
        if count < FEWEST:
            remark(
                f"threshold of {own.name} for '{group}': {count} validation rows tell little of it"
            )
    rules = fit_rules(
        constraint,
        objective,
        probabilities(own.outputs.squeeze(-1))[known].numpy(),
        (own.targets[known] == 1).numpy(),
        labelled,
    )
    run = call.run
    mark = read_mark(run.member.checkpoint)
    return GroupThresholds(
        constraint,
        objective,
        tuple(columns.edges),
        {column: edges for column, edges in columns.edges.items() if edges},
        rules,
        call.config["seed_everything"],
        int(known.sum()),
        mark["step"],
        mark["fingerprint"],
        describe_calibrator(run.model, own.name),
    )


def compare_decisions(
    call: AuditCall,
    columns: GroupColumns,
    splits: Mapping[Split, Mapping[str, TaskRows]],
    found: Mapping[str, GroupThresholds],
) -> list[ReportTable]:
    """Returns a table for each task: metrics and gaps before and after, on each split.

    Args:
        call: The call of the command.
        columns: The columns of groups.
        splits: {split: {task: its rows, by one threshold for all}}.
        found: {task: thresholds}.
    """
    measured: dict[str, dict[str, dict[str, float | None]]] = {name: {} for name in found}
    for split, tasks in splits.items():
        labels = columns.label(call.run.data, split)
        by_all = name_rows(list(labels), list(labels.values()))
        groups = list_groups({NAME: by_all}, {NAME: sorted(set(by_all))})
        decisions = GroupDecisions(call.run.data, split, found)
        every = torch.arange(len(by_all))
        outputs = {name: own.outputs for name, own in tasks.items()}
        decided = decisions.decide(every, outputs)
        for name in found:
            after = replace(tasks[name], decided=decided[name])
            for when, own in (("before", tasks[name]), ("after", after)):
                measured[name][f"{split} {when}"] = measure_decisions_of(own, groups)
    tables = []
    for name, rows in measured.items():
        cells = []
        for metric in (*SHOWN, *GAPS):
            values = [row[metric] for row in rows.values()]
            texts = [Cell("-" if value is None else f"{value:.4f}") for value in values]
            cells.append(Column((metric.replace("_", " "),), texts))
        by = " and ".join(columns.edges)
        title = f"\n{name}: thresholds by {by}, {found[name].constraint}"
        tables.append(ReportTable(title, "thresholds", list(rows), cells))
    return tables


def measure_decisions_of(own: TaskRows, groups: list[Group]) -> dict[str, float | None]:
    """Returns metrics of a task over all rows, and the gaps of its decisions between groups."""
    rows = measure_groups([own], groups, 0, 0)
    found = {row.metric: row.value for row in rows if not row.groups}
    gaps = find_gaps(rows, {own.name: own.task})
    return {**found, **{gap.metric: gap.gap for gap in gaps if gap.metric in GAPS}}
