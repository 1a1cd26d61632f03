"""Parameter groups, the optimizer and its schedule."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from src.errors import UserError
from src.models.schedule import WarmupCosine

Schedule = LRScheduler | ReduceLROnPlateau

# schedules that move at each optimizer step, which torch says in their documentation alone
EACH_STEP = (OneCycleLR, CyclicLR)


def parameter_groups(
    encoder: Mapping[str, nn.Parameter],
    heads: Mapping[str, list[nn.Parameter]],
    balancer: list[nn.Parameter],
    multipliers: Mapping[str, float],
    stage_decay: float,
    lr: float,
) -> list[dict[str, Any]]:
    """Returns the optimizer's groups by name: 'encoder', 'heads', single heads, 'balancer'.

    'encoder' is all of the sharing architecture. Heads at one rate are one group, since an
    optimizer pays for every group in every step; a head with a multiplier is a group by its task's
    name. The parameters of a balancer are no weights of the network, and do not decay. With a stage
    decay below 1, stage k of K is a group 'encoder.k' at lr x decay^(K - 1 - k); parameters outside
    the stages keep the whole rate.

    Args:
        encoder: The parameters of the sharing architecture by name.
        heads: The parameters of each task's head.
        balancer: The balancer's parameters.
        multipliers: Factors on the rate of 'encoder', 'balancer' or a task.
        stage_decay: The factor from each stage to the one below.
        lr: The learning rate.
    """
    stages: dict[int | None, list[nn.Parameter]] = defaultdict(list)
    for name, p in encoder.items():
        stages[stage_of(name) if stage_decay < 1 else None].append(p)
    top = max((k for k in stages if k is not None), default=0)

    found: list[dict[str, Any]] = []

    def add(name: str, parameters: list[nn.Parameter], factor: float) -> None:
        if parameters:
            found.append({"name": name, "params": parameters, "lr": lr * factor})

    of_encoder = multipliers.get("encoder", 1.0)
    for k, parameters in stages.items():
        if k is None:
            add("encoder", parameters, of_encoder * 1.0)
        else:
            add(f"encoder.{k}", parameters, of_encoder * stage_decay ** (top - k))
    together = [p for task, own in heads.items() if task not in multipliers for p in own]
    add("heads", together, 1.0)
    for task, own in heads.items():
        if task in multipliers:
            add(task, own, multipliers[task])
    if balancer:
        add("balancer", balancer, multipliers.get("balancer", 1.0))
        found[-1]["weight_decay"] = 0.0
    return found


def stage_of(name: str) -> int | None:
    """Returns the encoder's stage that a parameter belongs to, by its name; None for no stage.

    Stages keep their numbers when an architecture cuts an encoder.
    """
    found = re.search(r"(?:^|\.)stages\.(\d+)\.", name)
    return int(found[1]) if found else None


def refuse_bad_settings(make_optimizer: Callable[[Iterable[Any]], Optimizer]) -> None:
    """Tries the settings of the optimizer on one parameter, before the network is built.

    Raises:
        UserError: torch refuses a setting, such as a negative rate.
    """
    try:
        make_optimizer([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise UserError(f"model.optimizer: {error}") from None


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


def make_schedule(
    make_scheduler: Callable[..., Schedule], optimizer: Optimizer, steps: Callable[[], float]
) -> Schedule:
    """Makes a schedule, with the number of steps of the whole run where its class needs it.

    Raises:
        UserError: The run has no end.
    """
    try:
        return make_scheduler(optimizer)
    except ValueError as error:
        if "total_steps" not in str(error):
            raise
    return make_scheduler(optimizer, total_steps=whole_steps(steps(), "the schedule"))


def whole_steps(total: float, who: str) -> int:
    """Returns the number of steps of a run that has an end.

    Raises:
        UserError: It has none.
    """
    if total == float("inf"):
        raise UserError(
            f"{who} needs an end: set trainer.max_epochs, trainer.max_steps or "
            "model.scheduler.total_steps"
        )
    return int(total)


def optimizer_and_schedule(
    groups: Callable[[float], list[dict[str, Any]]],
    make_optimizer: Callable[[Iterable[Any]], Optimizer],
    make_scheduler: Callable[[Optimizer], Schedule] | None,
    interval: Literal["step", "epoch"] | None,
    steps: Callable[[], float],
) -> Any:
    """Returns the optimizer, and its schedule in the form that ``configure_optimizers`` returns.

    Args:
        groups: Makes parameter groups from the learning rate.
        make_optimizer: Makes the optimizer.
        make_scheduler: Makes the schedule; None for a constant rate.
        interval: When the schedule moves; None: as its class says, else every epoch.
        steps: Returns the number of steps of the whole run.

    Raises:
        UserError: torch refuses a setting, a plateau schedule waits for a lower score, or a
            schedule has no end.
    """
    try:
        lr = make_optimizer([nn.Parameter(torch.zeros(1))]).defaults["lr"]
        optimizer = make_optimizer(groups(float(lr)))
        fuse(optimizer)
        if make_scheduler is None:
            return optimizer
        scheduler = make_schedule(make_scheduler, optimizer, steps)
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
    else:
        usual = "step" if isinstance(scheduler, EACH_STEP) else "epoch"
        settings = {"interval": interval or getattr(scheduler, "interval", usual)}
    if isinstance(scheduler, WarmupCosine) and scheduler.total_steps is None:
        scheduler.set_total(whole_steps(steps(), "WarmupCosine"))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **settings}}
