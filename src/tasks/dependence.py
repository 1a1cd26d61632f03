"""Tasks that depend on others: labels that count only where another label says so, and chains.

A task with ``where: clicked`` counts only in rows whose label of the task ``clicked`` is positive;
with ``where: kind=dog`` in rows of that class. Elsewhere its label is taken for missing, before
anything sees it, so that losses, metrics and references agree. A label of weight 0 is missing, also
for the tasks that ask for it.

A binary task with ``depends_on: clicked`` and ``entire_space: true`` models
p(task) = p(clicked) p(task | clicked) over all rows (ESMM; Ma et al., "Entire space multi-task
model", SIGIR 2018, arXiv 1804.07931). Its head gives the logit b of the conditional probability,
and its output is the logit of the product, so that its loss reaches both heads. Where the other
label is negative, its own label is 0.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from src.errors import UserError, suggest_or_list
from src.tasks.binary import BinaryClassification
from src.tasks.labels import get_missing
from src.tasks.task import Task


def find_parent(task: Task) -> str | None:
    """Returns the task whose probability is a factor of this task's; None where there is none."""
    return task.depends_on if isinstance(task, BinaryClassification) else None


def find_condition(task: Task, tasks: Mapping[str, Task]) -> tuple[str, int] | None:
    """Returns the task and the position of its class that ``where`` names; None without it.

    Raises:
        UserError: There is no such task or class.
    """
    if task.where is None:
        return None
    name, _, wanted = task.where.partition("=")
    if task.where in tasks:
        name, wanted = task.where, ""
    if name not in tasks:
        hint = suggest_or_list(name, tasks)
        raise UserError(f"where names '{name}', which is no task: {hint}")
    other = tasks[name]
    classes = [str(label) for label in getattr(other, "classes", ())]
    if not classes:
        raise UserError(
            f"where names '{name}', a {type(other).__name__}, where a task with classes is expected"
        )
    if wanted:
        if wanted not in classes:
            hint = suggest_or_list(wanted, classes)
            raise UserError(f"where names '{wanted}', which is no class of '{name}': {hint}")
        return name, classes.index(wanted)
    if not isinstance(other, BinaryClassification):
        raise UserError(
            f"where names '{name}', which has no positive class: say which one counts, such as "
            f"where: '{name}={classes[0]}'"
        )
    return name, 1


def check_dependence(tasks: Mapping[str, Task]) -> None:
    """Checks the tasks that depend on others.

    Raises:
        UserError: A task depends on one that there is not, that is of another kind, or on itself.
    """
    order_by_dependence(tasks)
    for name, task in tasks.items():
        parent = find_parent(task)
        if parent is not None and not isinstance(tasks[parent], BinaryClassification):
            raise UserError(
                f"task '{name}': depends_on names '{parent}', a {type(tasks[parent]).__name__}: "
                "a product of probabilities needs two tasks of kind BinaryClassification"
            )
        if parent is not None and task.where is not None:
            raise UserError(
                f"task '{name}' has where {task.where} and entire_space, which contradict each "
                "other: it counts in some rows, or in all: leave one of them out"
            )


def order_by_dependence(tasks: Mapping[str, Task]) -> list[str]:
    """Returns the names of tasks, each behind the tasks that it depends on.

    Raises:
        UserError: A task depends on one that there is not, or on itself.
    """
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise UserError(f"task '{name}' depends on itself: {circle}")
        if name in order:
            return
        for other in list_dependence(name, tasks):
            visit(other, (*path, name))
        order.append(name)

    for name in tasks:
        visit(name, ())
    return order


def list_dependence(name: str, tasks: Mapping[str, Task]) -> list[str]:
    """Returns the tasks that a task names.

    Raises:
        UserError: One of them does not exist.
    """
    task = tasks[name]
    found = []
    try:
        condition = find_condition(task, tasks)
    except UserError as error:
        raise UserError(f"task '{name}': {error}") from None
    if condition is not None:
        found.append(condition[0])
    parent = find_parent(task)
    if parent is not None:
        if parent not in tasks:
            hint = suggest_or_list(parent, tasks)
            raise UserError(f"task '{name}': depends_on names '{parent}', which is no task: {hint}")
        found.append(parent)
    return found


def rename_dependence(task: Task, prefix: str) -> Task:
    """Returns a task among tasks whose names have all got a prefix."""
    changes: dict[str, Any] = {}
    if task.where is not None:
        changes["where"] = prefix + task.where
    parent = find_parent(task)
    if parent is not None:
        changes["depends_on"] = prefix + parent
    return replace(task, **changes) if prefix and changes else task


# -- labels ----------------------------------------------------------------------------------------
def has_dependent_labels(tasks: Mapping[str, Task]) -> bool:
    """Returns whether labels of some task are read by another."""
    return any(task.where is not None or find_parent(task) for task in tasks.values())


def resolve_labels(targets: Mapping[str, Tensor], tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """Returns targets in which each task's labels follow from those of the tasks it depends on.

    Args:
        targets: {task: (B, ...)} as they are read.
        tasks: {name: task}.
    """
    found = dict(targets)
    for name in order_by_dependence(tasks):
        if name not in found:
            continue
        condition = find_condition(tasks[name], tasks)
        if condition is not None:
            other, position = condition
            gone = spread(found[other] != position, found[name])
            found[name] = found[name].masked_fill(gone, get_missing(found[name]))
        parent = find_parent(tasks[name])
        if parent is not None:
            # nobody buys without a click
            found[name] = found[name].masked_fill(found[parent] == 0, 0)
    return found


def spread(rows: Tensor, targets: Tensor) -> Tensor:
    """Adds dimensions to what is known of rows (B, ...), up to those of targets (B, ..., L)."""
    return rows.view(*rows.shape, *[1] * (targets.ndim - rows.ndim))


# -- probabilities ---------------------------------------------------------------------------------
def multiply_probabilities(a: Tensor, b: Tensor) -> Tensor:
    """Returns logit(sigmoid(a) sigmoid(b)) = -log(exp(-a) + exp(-b) + exp(-a - b)).

    It is exact where the product is near 0 or near 1, and so are its derivatives.
    """
    return -torch.logsumexp(torch.stack([-a, -b, -a - b]), 0)


def decode_factor(
    name: str, tasks: Mapping[str, Task], outputs: Mapping[str, Any]
) -> dict[str, list[float]]:
    """Returns p(task | the task it depends on) as a column; nothing where it depends on none.

    Args:
        name: The task.
        tasks: {name: task}.
        outputs: {task: outputs (B, 1)} of both tasks.
    """
    task = tasks[name]
    parent = find_parent(task)
    if parent is None:
        return {}
    assert isinstance(task, BinaryClassification)
    # sigmoid(product) / sigmoid(parent), where both may be tiny
    shares = F.logsigmoid(outputs[name].double()) - F.logsigmoid(outputs[parent].double())
    column = shares.exp().clamp(max=1).squeeze(-1)
    return {f"p_{task.classes[1]}_if_{parent}": column.tolist()}
