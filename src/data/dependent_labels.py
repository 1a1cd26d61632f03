"""Rows whose labels follow from those of the tasks that they depend on."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from src.batch import Batch
from src.data.rows import BatchDataset
from src.tasks import BinaryClassification, Classification, Task
from src.tasks.dependence import (
    check_dependence,
    find_condition,
    find_parent,
    has_dependent_labels,
    resolve_labels,
)
from src.tasks.labels import is_labelled


class DependentLabels(BatchDataset):
    """The rows of a data set, with the labels that count, see :func:`resolve_labels`.

    Args:
        rows: The rows, with labels as they are read.
        tasks: {name: task}.
    """

    def __init__(self, rows: BatchDataset, tasks: Mapping[str, Task]) -> None:
        self.rows = rows
        self.tasks = dict(tasks)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows ``ids``."""
        batch = self.rows[ids]
        batch.targets = resolve_labels(batch.targets, self.tasks)
        return batch


def resolve_rows(rows: BatchDataset, tasks: Mapping[str, Task]) -> BatchDataset:
    """Returns rows with the labels that count; the rows themselves where no task depends on others.

    Raises:
        UserError: A task depends on one that there is not, or on itself.
    """
    if not has_dependent_labels(tasks):
        return rows
    check_dependence(tasks)
    return DependentLabels(rows, tasks)


def describe_dependence(tasks: Mapping[str, Task], targets: Mapping[str, Tensor]) -> list[str]:
    """Returns a line on each task that depends on another: the training rows that count.

    Args:
        tasks: {name: task}.
        targets: {task: (N, ...)} of the training rows, as they are read.
    """
    if not has_dependent_labels(tasks):
        return []
    check_dependence(tasks)
    counted = resolve_labels(targets, tasks)
    lines = []
    for name, task in tasks.items():
        condition = find_condition(task, tasks)
        parent = find_parent(task)
        rows = len(targets[name])
        known = int(is_labelled(counted[name]).reshape(rows, -1).any(1).sum())
        if condition is not None:
            other, position = condition
            label = cast(Classification | BinaryClassification, tasks[other]).classes[position]
            lines.append(f"task {name}: counts where {other} is {label}, {known} of {rows} rows")
        elif parent is not None:
            line = f"task {name}: p({parent}) p({name} | {parent}), {known} of {rows} rows count"
            turned = int(((targets[name] == 1) & (targets[parent] == 0)).sum())
            if turned:
                line += f"; {turned} of them are positive without {parent}, and count as negative"
            lines.append(line)
    return lines
