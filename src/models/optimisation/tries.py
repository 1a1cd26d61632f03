"""Tries of an optimizer and a schedule on a few numbers, before a network is built."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from src.errors import UserError
from src.models.optimisation.averaging import refuse_schedule
from src.models.optimisation.groups import Grouping
from src.models.optimisation.schedules import Schedule
from src.models.optimisation.warmup_cosine import WarmRestarts

MakeOptimizer = Callable[[Iterable[Any]], Optimizer]
MakeSchedule = Callable[[Optimizer], Schedule]


def try_settings(
    make_optimizer: MakeOptimizer,
    make_scheduler: MakeSchedule | None,
    lr_multipliers: Mapping[str, float],
    stage_decay: float,
    tasks: Iterable[str],
) -> Grouping:
    """Tries the settings of optimizer and schedule on one parameter, before the network is built.

    Args:
        make_optimizer: Makes the optimizer.
        make_scheduler: Makes the schedule; None for a constant rate.
        lr_multipliers: Factors on the rates of groups.
        stage_decay: The factor from each stage to the one below.
        tasks: The tasks' names.

    Returns:
        How far they want parameters split into groups.

    Raises:
        UserError: One of them refuses a setting, such as a negative rate, or they do not go
            together.
    """
    try:
        optimizer = make_optimizer([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise UserError(f"model.optimizer: {error}") from None
    by_matrix = bool(getattr(optimizer, "by_matrix", False))
    schedule = None
    if make_scheduler is not None:
        refuse_schedule(optimizer)
        schedule = try_schedule(make_scheduler, optimizer)
    if isinstance(schedule, WarmRestarts):
        schedule.check_names(tasks)
    by_task = bool(getattr(schedule, "by_task", False))

    decayed = stage_decay < 1 or any(factor != 1 for factor in lr_multipliers.values())
    if (decayed or by_task) and not keeps_rates(make_optimizer):
        asks = f"model.scheduler {type(schedule).__name__}"
        if decayed:
            asks = "model.stage_decay" if stage_decay < 1 else "model.lr_multipliers"
        raise UserError(
            f"{type(optimizer).__name__} moves all parameters at the rate of the first group, and "
            f"{asks} asks for rates of groups: leave that out, or use AdamW"
        )
    return Grouping(by_task, by_matrix)


def try_schedule(make_scheduler: MakeSchedule, optimizer: Optimizer) -> Schedule | None:
    """Tries the settings of a schedule; returns None where it needs more than an optimizer.

    Raises:
        UserError: The schedule refuses a setting.
    """
    try:
        return make_scheduler(optimizer)
    except UserError as error:
        # torch's may ask for the length of the run, which is not known yet
        if "total_steps" in str(error):
            return None
        raise UserError(f"model.scheduler: {error}") from None
    except (ValueError, TypeError):
        # settings of each group are not known yet
        return None


def keeps_rates(make_optimizer: MakeOptimizer) -> bool:
    """Returns whether an optimizer moves each group at the group's own rate.

    A group with a rate of 0 must stay where it is.
    """
    first, second = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    groups = [{"params": [first], "lr": 1.0}, {"params": [second], "lr": 0.0}]
    try:
        optimizer = make_optimizer(groups)
        for _ in range(2):
            first.grad = torch.ones_like(first)
            second.grad = torch.ones_like(second)
            optimizer.step()
    except Exception:
        # one that needs more than gradients says so when it takes its first step
        return True
    return bool((second == 1).all())


def refuse_spread(make_optimizer: MakeOptimizer, in_shards: bool) -> None:
    """Refuses an optimizer that would take other steps where parameters are spread over processes.

    Args:
        make_optimizer: Makes the optimizer.
        in_shards: Whether each parameter is in shards; else each is whole, in one process.

    Raises:
        UserError: It reads several parameters at once, or of shards a whole parameter.
    """
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))])
    # torch's own optimizers know shards, and ours asks for whole matrices
    if type(optimizer).__module__.startswith(("torch.", "src.")) or is_separable(
        make_optimizer, in_shards
    ):
        return
    reads = "whole parameters" if in_shards else "all parameters at once"
    raise UserError(
        f"{type(optimizer).__name__} reads {reads} in each step, and here a process has a part of "
        "them: use --strategy ddp, or AdamW"
    )


def is_separable(make_optimizer: MakeOptimizer, in_shards: bool) -> bool:
    """Returns whether an optimizer takes the same steps where others have a part of the parameters.

    Args:
        make_optimizer: Makes the optimizer.
        in_shards: Whether a part is some rows of each parameter; else it is some parameters.
    """
    generator = torch.Generator().manual_seed(0)
    starts = torch.randn(2, 4, 3, generator=generator)
    gradients = torch.randn(4, 2, 4, 3, generator=generator)
    together = take_steps(make_optimizer, list(starts), list(gradients))
    cut = (2, 2) if in_shards else (1, 1)
    dim = 1 if in_shards else 0
    apart = [
        take_steps(make_optimizer, list(own), list(theirs))
        for own, theirs in zip(starts.split(cut, dim), gradients.split(cut, dim + 1), strict=True)
    ]
    if together is None or any(one is None for one in apart):
        return True
    return torch.equal(together, torch.cat([one for one in apart if one is not None], dim))


def take_steps(
    make_optimizer: MakeOptimizer, starts: list[Tensor], gradients: list[Tensor]
) -> Tensor | None:
    """Takes a few steps from given weights; returns the weights, or None where it cannot.

    Args:
        make_optimizer: Makes the optimizer.
        starts: The weights of each parameter.
        gradients: The gradients of all parameters, for each step.
    """
    parameters = [nn.Parameter(start.clone()) for start in starts]
    try:
        optimizer = make_optimizer(parameters)
        for step in gradients:
            for p, gradient in zip(parameters, step, strict=True):
                p.grad = gradient.clone()
            optimizer.step()
    except Exception:
        # one that needs more than gradients says so when it takes its first step
        return None
    return torch.stack([p.detach() for p in parameters])
