"""Weights of a table's rows, from a column of the file: for all tasks, or for one.

The column is no input. Its name is a setting of each task that it weighs, so that the schema of a
run keeps it, and a later command reads it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from src.data.tables.numbers import BadValue, NumberFormat
from src.data.tables.reading import number_row
from src.errors import UserError, suggest_or_list
from src.tasks.labels import is_labelled

if TYPE_CHECKING:
    import pandas as pd

    from src.data.tables.table import Table
    from src.tasks import Task


def weigh_task(task: Task, column: str | None) -> Task:
    """Returns the task with the column of weights that holds for all tasks, unless it has one."""
    return task if column is None or task.row_weight else replace(task, row_weight=column)


def list_weight_columns(table: Table) -> list[str]:
    """Returns the columns that hold weights of rows; none of them is an input."""
    named = [table.row_weight, *(task.row_weight for task in table.tasks.values())]
    return list(dict.fromkeys(column for column in named if column is not None))


def read_weights(table: Table, role: str, rows: np.ndarray) -> dict[str, Tensor]:
    """Returns {task: weights (N,)} of some rows of a file.

    Raises:
        UserError: The column is missing, or a weight is.
    """
    read: dict[str, Tensor] = {}
    found = {}
    for name, task in table.tasks.items():
        column = task.row_weight
        if column is None:
            continue
        if column not in read:
            read[column] = read_column(table, role, column, name)[rows]
        found[name] = read[column]
    return found


def read_column(table: Table, role: str, column: str, task: str) -> Tensor:
    """Returns the weights (N,) in a column of a file, fp32.

    Raises:
        UserError: There is no such column, or it holds something else than numbers from 0.
    """
    frame = table.table_files.frame(role)
    path = table.table_files.paths[role]
    if column not in frame.columns:
        hint = suggest_or_list(column, frame.columns)
        raise UserError(
            f"{path}: lacks the column '{column}', the row_weight of task '{task}': {hint}; "
            "a 1 in each row weighs all alike"
        )
    try:
        return torch.from_numpy(parse_weights(frame[column], table.decimal, table.thousands))
    except BadValue as error:
        row = number_row(frame, error.row)
        raise UserError(f"{path} row {row}: row_weight '{column}' {error}") from None


def parse_weights(series: pd.Series, decimal: str | None, thousands: str | None) -> np.ndarray:
    """Returns weights (N,) as fp32.

    Raises:
        BadValue: One is missing, below 0, not finite, or no number.
    """
    numbers = NumberFormat(decimal or ".", thousands or "").numbers(series)
    for wrong, reason in (
        (np.isnan(numbers), "is missing; 0 leaves the row out"),
        (numbers < 0, "is below 0; weights start at 0"),
    ):
        if wrong.any():
            raise BadValue(int(wrong.argmax()), reason)
    return numbers.astype(np.float32)


def check_weights(table: Table) -> None:
    """Checks that each task has training rows that weigh, with a label.

    Raises:
        UserError: A task has none.
    """
    weights = read_weights(table, "train", table.rows["train"])
    for name, own in weights.items():
        labels = is_labelled(table.encode_targets_of("train", name)[table.rows["train"]])
        known = labels.reshape(len(own), -1).any(1)
        if not (own * known).any():
            raise UserError(
                f"{table.path}: no training row of task '{name}' has a label and a weight above 0 "
                f"in column '{table.tasks[name].row_weight}'"
            )


def describe_weights(table: Table) -> list[str]:
    """Returns a line on the weights of each task's training rows, and what they do not reach."""
    check_weights(table)
    weights = read_weights(table, "train", table.rows["train"])
    return [describe_task(name, table.tasks[name], own) for name, own in weights.items()]


def describe_task(name: str, task: Task, weights: Tensor) -> str:
    """Says how the training rows of a task weigh, in its loss and in its metrics."""
    least, most = weights.min(), weights.max()
    reach = "its loss and metrics"
    alike = [metric.name for metric in task.added_metrics]
    if not task.weighs_metrics:
        reach = "its loss"
        alike = [*task.metric_names, *alike]
    verb = "count" if len(alike) > 1 else "counts"
    but = f"; {', '.join(alike)} {verb} all rows alike" if alike else ""
    spread = f"{least:g} to {most:g} in training rows"
    return f"task {name}: rows weigh as column '{task.row_weight}' says in {reach} ({spread}){but}"


def name_settings(table: Table, settings: Mapping[str, object]) -> dict[str, list[str]]:
    """Returns {setting: columns} of the settings that name columns of weights."""
    found = {"row_weight": [table.row_weight] if table.row_weight else []}
    for task, given in settings.items():
        column = find_column(given)
        if column is not None:
            found[f"tasks.{task}.row_weight"] = [column]
    return found


def find_column(given: object) -> str | None:
    """Returns the column of weights in the settings of a task, as a user gives them."""
    if not isinstance(given, dict):
        column = getattr(given, "row_weight", None)
    else:
        column = given.get("row_weight", given.get("init_args", {}).get("row_weight"))
    return None if column is None else str(column)
