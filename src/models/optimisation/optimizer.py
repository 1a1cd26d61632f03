"""The optimizer on named groups, and its schedule."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from src.errors import UserError
from src.models.optimisation.muon_adamw import MuonAdamW
from src.models.optimisation.schedules import EACH_STEP, fit_to_run, make_schedule
from src.models.optimisation.task_plateau import TaskPlateau
from src.models.optimisation.tries import refuse_spread

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


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
        UserError: torch refuses a setting, the optimizer cannot work in parts, a plateau
            schedule waits for a lower score, or a schedule has no end.
    """
    parameters = list(model.parameters())
    in_shards = model.runner.shards is not None
    if in_shards or any(p.is_meta for p in parameters):
        refuse_spread(model.make_optimizer, in_shards)
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
        own = getattr(scheduler, "interval", usual)
        settings = {"interval": model.scheduler_interval or own}
    fit_to_run(scheduler, trainer)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **settings}}
