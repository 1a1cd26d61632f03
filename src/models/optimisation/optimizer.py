"""The optimizer on named groups, and its schedule."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from src.errors import UserError
from src.models.optimisation.averaging import refuse_schedule
from src.models.optimisation.groups import Grouping
from src.models.optimisation.muon_adamw import MuonAdamW
from src.models.optimisation.schedules import EACH_STEP, Schedule, fit_to_run, make_schedule
from src.models.optimisation.task_plateau import TaskPlateau
from src.models.optimisation.warmup_cosine import WarmRestarts

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel

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
        UserError: A schedule of ours refuses a setting.
    """
    try:
        return make_scheduler(optimizer)
    except UserError:
        raise
    except (ValueError, TypeError):
        # the length of the run, or settings of each group, are not known yet
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


def fuse(optimizer: Optimizer) -> None:
    """Switches to torch's fused step on CPUs, unless a setting asks for another.

    It is one call for all parameters instead of ten for each. Shards have no fused step.
    """
    for group in optimizer.param_groups:
        # a parameter on meta belongs to another process, and takes no step here
        here = [p for p in group["params"] if not p.is_meta]
        fits = all(
            type(p) is nn.Parameter and p.device.type == "cpu" and p.is_floating_point()
            for p in here
        )
        asked = group.get("fused") is not None or group.get("foreach") is not None
        if fits and "fused" in group and not asked and not group.get("differentiable"):
            group["fused"] = True


def optimizer_and_schedule(model: "MultiTaskModel") -> Any:
    """Returns the optimizer, and its schedule in the form that ``configure_optimizers`` returns.

    Args:
        model: The model, built, with its Trainer.

    Raises:
        UserError: torch refuses a setting, a plateau schedule waits for a lower score, or a
            schedule has no end.
    """
    try:
        lr = model.make_optimizer([nn.Parameter(torch.zeros(1))]).defaults["lr"]
        optimizer = model.make_optimizer(model.parameter_groups(float(lr)))
        fuse(optimizer)
        if isinstance(optimizer, MuonAdamW):
            optimizer.shards = model.runner.shards
        if model.make_scheduler is None:
            return optimizer
        trainer = model.trainer
        scheduler = make_schedule(
            model.make_scheduler, optimizer, lambda: trainer.estimated_stepping_batches
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"model.optimizer or model.scheduler: {error}") from None

    settings: dict[str, Any]
    if isinstance(scheduler, ReduceLROnPlateau):
        if scheduler.mode != "max":
            raise UserError(
                "model.scheduler watches val/score, which is better the larger it is: set "
                "--model.scheduler.mode max"
            )
        # Lightning would move it after the last checkpoint of an epoch, and lose that move when it
        # resumes
        settings = {"reduce_on_plateau": False, "interval": "epoch"}
    elif isinstance(scheduler, TaskPlateau):
        settings = {"interval": "epoch"}
    else:
        usual = "step" if isinstance(scheduler, EACH_STEP) else "epoch"
        interval = model.scheduler_interval or getattr(scheduler, "interval", usual)
        settings = {"interval": interval}
    fit_to_run(scheduler, trainer)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **settings}}
