"""Checks of a model: its settings, its network before it trains, the tasks of a checkpoint."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from src.errors import UserError, suggest
from src.models.checks import check_keys, check_losses
from src.tasks import Task
from src.tasks.dependence import check_dependence
from src.tasks.head import Head

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


def check_settings(
    tasks: Mapping[str, Task], lr_multipliers: Mapping[str, float], stage_decay: float
) -> None:
    """Checks the settings of a model, before anything is built.

    Raises:
        UserError: A task's name, a multiplier or the decay is not allowed.
    """
    if not tasks:
        raise UserError("a model needs at least one task")
    for name in tasks:
        if not name or "." in name:
            raise UserError(
                f"a task cannot be named '{name}': names are not empty and hold no dot, which "
                "separates keys"
            )
    check_keys(tasks)
    check_dependence(tasks)
    if not 0 < stage_decay <= 1:
        raise UserError(f"model.stage_decay is {stage_decay}; it must be above 0 and at most 1")
    for name, factor in lr_multipliers.items():
        if name in ("encoder", "heads", "balancer") and name in tasks:
            raise UserError(
                f"model.lr_multipliers names '{name}', a task with a parameter group's name: "
                "rename the task"
            )
        if name not in ("encoder", "balancer") and name not in tasks:
            near = suggest(name, ["encoder", "balancer", *tasks])
            raise UserError(
                f"model.lr_multipliers names '{name}', which is neither 'encoder' nor a task"
                f"{'; ' + near if near else ''}"
            )
        if factor < 0:
            raise UserError(f"model.lr_multipliers.{name} is {factor}; it must be at least 0")


def fixed_weights(tasks: Mapping[str, Task], given: Mapping[str, float]) -> dict[str, float]:
    """Returns {task: the fixed weight of its loss}, the task's own unless another is given.

    Raises:
        UserError: A given weight is of no task, or below 0.
    """
    weights = {name: task.weight for name, task in tasks.items()}
    for name, weight in given.items():
        if name not in tasks:
            raise UserError(
                f"model.weights names '{name}', which is no task; there are {', '.join(tasks)}"
            )
        if weight < 0:
            raise UserError(f"model.weights.{name} is {weight}; it must be at least 0")
        weights[name] = weight
    return weights


def check_network(model: "MultiTaskModel", micro_batches: int) -> None:
    """Checks a model that is built, before it trains.

    Args:
        model: The model.
        micro_batches: The number of batches per optimizer step.

    Raises:
        UserError: A task's loss does not leave out missing labels, or the balancer would see no
            shared feature, or each micro-batch by itself.
    """
    check_losses(model.heads.groups)
    if model.meta is not None:
        model.meta.check(model)
    if model.fairness is not None:
        model.fairness.check(model, micro_batches)
    balancer = model.balancer
    method = type(balancer).__name__
    if balancer.level is not None:
        refuse_factors(model, f"{method} balances the gradients of tasks")
    if balancer.level == "features" and not model.sharing.one_feature:
        raise UserError(
            f"{method} balances the gradients of one feature that all tasks read, but "
            f"{type(model.sharing).__name__} gives each task its own: set --model.balancer.level "
            "parameters"
        )
    if micro_batches > 1 and (balancer.level == "features" or not balancer.accumulates):
        way_out = "set "
        if balancer.accumulates:
            way_out = "set --model.balancer.level parameters, or set "
        raise UserError(
            f"{method} would balance each micro-batch by itself, not the whole step: {way_out}"
            "accumulate_grad_batches 1"
        )


def refuse_factors(model: "MultiTaskModel", reason: str) -> None:
    """Refuses gradients of tasks whose losses read several heads, where these cannot be told apart.

    Args:
        model: The model, built.
        reason: Who takes gradients of tasks.

    Raises:
        UserError: A loss reads the heads of two tasks that have features of their own, or a head
            that is not plain.
    """
    heads = model.heads
    for name in heads.factors:
        plain = all(type(heads[other]) is Head for other in heads.list_factors(name))
        if not (plain and model.sharing.one_feature):
            raise UserError(
                f"{reason}, but with entire_space the loss of '{name}' reads the head of "
                f"'{heads.factors[name]}', too, which it can do with HardSharing and without "
                "pooled alone: choose these, or a balancer that looks at losses, such as "
                f"UncertaintyWeights, or where {heads.factors[name]} in place of depends_on"
            )


def check_same_tasks(theirs: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Task]) -> None:
    """Checks that a checkpoint is of the same tasks as a model.

    Args:
        theirs: {name: description} of the checkpoint's tasks.
        tasks: The model's tasks.

    Raises:
        UserError: Names, kinds or sizes differ.
    """
    if set(theirs) != set(tasks):
        raise UserError(
            f"the checkpoint is of the tasks {', '.join(theirs)}, but this run has "
            f"{', '.join(tasks)}"
        )
    for name, task in tasks.items():
        for key in ("kind", "classes", "labels", "names"):
            there = theirs[name].get(key)
            here = task.describe().get(key)
            if key == "kind":
                # the class may have moved to another file since
                there = str(there).rpartition(".")[2]
                here = str(here).rpartition(".")[2]
            if there != here:
                raise UserError(
                    f"the checkpoint's task '{name}' has {key} {there}, but this run's has {here}"
                )
