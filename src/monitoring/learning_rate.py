"""The learning rate of a resumed run: where it goes on, and where its schedule raises it."""

from collections.abc import Mapping
from typing import Any, cast

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from src.errors import UserError
from src.monitoring.observed_model import ObservedModel
from src.monitoring.quiet import Quiet
from src.monitoring.say import say

SCALED = ("initial_lr", "max_lr", "min_lr")  # what schedules keep in an optimizer's groups


class LearningRate(Quiet):
    """Goes on from a rate that is asked for when a run is resumed; says where the schedule of a longer run jumps.

    Args:
        configured: The optimizer's rate in the configuration; None where it is the optimizer's own
            default.
        asked: Whether this session asks for it.
    """

    state_key = "learning rate"

    def __init__(self, configured: float | None = None, asked: bool = False) -> None:
        super().__init__()
        self.configured, self.asked = configured, asked
        self.trained_at = configured
        self.before: list[float] | None = None  # of the checkpoint's groups

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Notes the rates of the checkpoint."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.before = [
                float(group["lr"]) for group in checkpoint["optimizer_states"][0]["param_groups"]
            ]

    def state_dict(self) -> dict[str, Any]:
        """Returns the rate that this run's rates follow from: a run that is killed soon after it was changed changes it again."""
        return {"lr": self.configured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Knows from which rate the checkpoint was trained."""
        self.trained_at = state_dict["lr"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Looks at the schedule, and changes or compares the rates of a resumed run.

        Raises:
            UserError: The schedule ends before the run does, or has come down to 0.
        """
        configs = trainer.lr_scheduler_configs
        schedule = configs[0].scheduler if configs else None
        if configs:
            look_at_interval(
                trainer, schedule, configs[0].interval, resumed=self.before is not None
            )
        before, self.before = self.before, None
        if before is None:
            return
        groups = trainer.optimizers[0].param_groups
        if self.configured is not None and (self.asked or self.configured != self.trained_at):
            factors = {
                group["name"]: group["lr"]
                for group in cast(ObservedModel, pl_module).parameter_groups(1.0)
            }
            go_on_from(self.configured, trainer.optimizers[0], schedule, factors)
            say(f"the learning rate goes on from {self.configured:.3g}")
        elif (after := max(float(group["lr"]) for group in groups)) > 1.01 * max(before):
            end = getattr(schedule, "total_steps", None)
            ends = f": the schedule now ends at step {end}" if end else ""
            say(
                f"the learning rate goes back up from {max(before):.3g} to {after:.3g}{ends}; for another rate to go on from add "
                "--lr RATE, and --model.scheduler null to keep it"
            )


def look_at_interval(trainer: L.Trainer, schedule: Any, interval: str, resumed: bool) -> None:
    """Looks at schedules that are made to move at each step.

    Raises:
        UserError: One of them ends before the run does.
    """
    if not isinstance(schedule, OneCycleLR | CyclicLR):
        return
    kind = type(schedule).__name__
    if interval == "epoch":
        say(
            f"note: {kind} is made to move at each step; model.scheduler_interval epoch moves it once an epoch"
        )
    if not isinstance(schedule, OneCycleLR):
        return
    takes = trainer.estimated_stepping_batches if interval == "step" else trainer.max_epochs
    if takes is not None and takes > schedule.total_steps:
        way_out = (
            "go on with --model.scheduler null --lr RATE"
            if resumed
            else f"set --model.scheduler.total_steps {takes}"
        )
        raise UserError(
            f"model.scheduler {kind} ends at {interval} {schedule.total_steps}, but the run takes {takes}: {way_out}"
        )


def go_on_from(
    rate: float, optimizer: Optimizer, schedule: Any, factors: Mapping[str, float]
) -> None:
    """Scales rates, and the curve that a schedule draws from here on, so that the next step is at this rate.

    Args:
        rate: Of groups without a factor.
        optimizer: Has the rates.
        schedule: What moves them; None for nothing.
        factors: {group: factor on the rate}.

    Raises:
        UserError: The schedule has come to its end, where its curve is 0.
    """
    for k, group in enumerate(optimizer.param_groups):
        wanted, now = rate * factors[group["name"]], float(group["lr"])
        if schedule is not None:
            if not now and wanted:
                raise UserError(
                    "the schedule has come down to a rate of 0: add --model.scheduler null to go on at --lr"
                )
            ratio = wanted / now if now else 1.0
            for key in SCALED:
                if key in group:
                    group[key] = group[key] * ratio
            for rates in ("base_lrs", "max_lrs"):  # of CyclicLR the latter
                if hasattr(schedule, rates):
                    getattr(schedule, rates)[k] *= ratio
        group["lr"] = wanted
