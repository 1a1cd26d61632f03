"""Parameter groups, the optimizer and its schedule."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from src.errors import UserError
from src.models.schedule import WarmupCosine

EACH_STEP = (
    OneCycleLR,
    CyclicLR,
)  # made to move at each optimizer step, which torch notes in their documentation alone


def parameter_groups(
    encoder: Mapping[str, nn.Parameter],
    heads: Mapping[str, list[nn.Parameter]],
    balancer: list[nn.Parameter],
    multipliers: Mapping[str, float],
    stage_decay: float,
    lr: float,
) -> list[dict[str, Any]]:
    """Named groups: 'encoder' (all of the sharing architecture), 'heads', each head with a multiplier of its own, 'balancer'.

    Heads at the same rate are one group: an optimizer pays for every group in every step. What a
    balancer learns is no weight of the network, and does not decay. With a decay below 1 stage k of
    K is a group 'encoder.k' at lr x decay^(K - 1 - k); what belongs to no stage keeps the whole
    rate.

    Args:
        encoder: The parameters of the sharing architecture by name.
        heads: Those of each task's head.
        balancer: The balancer's.
        multipliers: Factors on the rate of 'encoder', 'balancer' or a task.
        stage_decay: Factor from each stage to the one below.
        lr: The rate.
    """
    stages: dict[int | None, list[nn.Parameter]] = defaultdict(list)
    for name, p in encoder.items():
        stages[stage_of(name) if stage_decay < 1 else None].append(p)
    top = max((k for k in stages if k is not None), default=0)
    groups: list[tuple[str, list[nn.Parameter], float]] = []
    for k, parameters in stages.items():
        factor = multipliers.get("encoder", 1.0) * (1.0 if k is None else stage_decay ** (top - k))
        groups.append(("encoder" if k is None else f"encoder.{k}", parameters, factor))
    groups.append(
        ("heads", [p for task, own in heads.items() if task not in multipliers for p in own], 1.0)
    )
    groups += [(task, own, multipliers[task]) for task, own in heads.items() if task in multipliers]
    groups.append(("balancer", balancer, multipliers.get("balancer", 1.0)))
    return [
        {"name": name, "params": parameters, "lr": lr * factor}
        | ({"weight_decay": 0.0} if name == "balancer" else {})
        for name, parameters, factor in groups
        if parameters
    ]


def stage_of(name: str) -> int | None:
    """The stage of the encoder that a parameter belongs to, by its name; stages keep theirs when an architecture cuts them."""
    found = re.search(r"(?:^|\.)stages\.(\d+)\.", name)
    return int(found[1]) if found else None


def refuse_bad_settings(make_optimizer: Callable[[Iterable[Any]], Optimizer]) -> None:
    """Makes an optimizer of one parameter, long before that of the model.

    Raises:
        UserError: torch refuses a setting, such as a negative rate.
    """
    try:
        make_optimizer([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise UserError(f"model.optimizer: {error}") from None


def fuse(optimizer: Optimizer) -> None:
    """One call for all parameters instead of ten for each, where torch has that on CPUs and nothing else was asked for."""
    for group in optimizer.param_groups:
        here = [
            p for p in group["params"] if not p.is_meta
        ]  # what another process has takes no step
        on_cpu = all(
            p.device.type == "cpu" and p.is_floating_point() and not isinstance(p, DTensor)
            for p in here
        )
        asked = (
            group.get("fused") is not None
            or group.get("foreach") is not None
            or group.get("differentiable")
        )
        if on_cpu and "fused" in group and not asked:
            group["fused"] = True


def made(
    make_scheduler: Callable[..., LRScheduler | ReduceLROnPlateau],
    optimizer: Optimizer,
    steps: Callable[[], float],
) -> LRScheduler | ReduceLROnPlateau:
    """Makes a schedule, and tells one that must know it the number of steps of the whole run.

    Raises:
        UserError: torch refuses a setting, or the run has no end.
    """
    try:
        return make_scheduler(optimizer)
    except ValueError as error:
        if "total_steps" not in str(error):
            raise
    total = steps()
    if total == float("inf"):
        raise UserError(
            "the schedule needs an end: set trainer.max_epochs, trainer.max_steps or model.scheduler.total_steps"
        )
    return make_scheduler(optimizer, total_steps=int(total))


def optimizer_and_schedule(
    groups: Callable[[float], list[dict[str, Any]]],
    make_optimizer: Callable[[Iterable[Any]], Optimizer],
    make_scheduler: Callable[[Optimizer], LRScheduler | ReduceLROnPlateau] | None,
    interval: Literal["step", "epoch"] | None,
    steps: Callable[[], float],
) -> Any:
    """What Lightning wants of ``configure_optimizers``.

    Args:
        groups: Makes parameter groups from the learning rate.
        make_optimizer: Makes the optimizer.
        make_scheduler: Makes the schedule; None for a constant rate.
        interval: When it moves; None: what its class says, else every epoch.
        steps: The number of steps of the whole run.

    Raises:
        UserError: A setting that torch refuses, a plateau schedule that waits for less, a schedule
            without an end.
    """
    try:
        lr = make_optimizer([nn.Parameter(torch.zeros(1))]).defaults["lr"]
        optimizer = make_optimizer(groups(float(lr)))
        fuse(optimizer)
        if make_scheduler is None:
            return optimizer
        scheduler = made(make_scheduler, optimizer, steps)
    except (ValueError, TypeError) as error:  # torch on a value that it cannot take
        raise UserError(f"model.optimizer or model.scheduler: {error}") from None
    if isinstance(scheduler, ReduceLROnPlateau):
        if scheduler.mode != "max":
            raise UserError(
                "model.scheduler watches val/score, of which more is better: set --model.scheduler.mode max"
            )
        # Lightning would move it after the last checkpoint of an epoch, and lose that move when it
        # resumes
        plan: dict[str, Any] = {"reduce_on_plateau": False, "interval": "epoch"}
    else:
        by_nature = "step" if isinstance(scheduler, EACH_STEP) else "epoch"
        plan = {"interval": interval or getattr(scheduler, "interval", by_nature)}
    if isinstance(scheduler, WarmupCosine) and scheduler.total_steps is None:
        total = steps()
        if total == float("inf"):
            raise UserError(
                "WarmupCosine needs an end: set trainer.max_epochs, trainer.max_steps or model.scheduler.total_steps"
            )
        scheduler.plan(int(total))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **plan}}
