"""The optimizer on named groups, and its schedule."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from src.errors import UserError
from src.models.optimisation.schedules import EACH_STEP, Schedule, make_schedule, whole_steps
from src.models.optimisation.warmup_cosine import WarmupCosine


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
