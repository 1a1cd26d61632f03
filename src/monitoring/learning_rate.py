"""The learning rate of a resumed run."""

from collections.abc import Mapping
from typing import Any, cast

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from src.errors import UserError
from src.monitoring.observed_model import ObservedModel
from src.monitoring.say import say
from src.overhead import Quiet

SCALED = ("initial_lr", "max_lr", "min_lr")  # rates that schedules keep in an optimizer's groups


class LearningRate(Quiet):
    """Sets the rate of a resumed run where a new one is asked for.

    Where the schedule of a longer run raises the rate instead, it prints so.

    Args:
        configured: The optimizer's rate in the configuration; None for the optimizer's default.
        asked: Whether this session asks for that rate.
    """

    state_key = "learning rate"

    def __init__(self, configured: float | None = None, asked: bool = False) -> None:
        super().__init__()
        self.configured = configured
        self.asked = asked
        self.trained_at = configured
        self.before: list[float] | None = None  # rates of the checkpoint's groups

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Notes the rates of the checkpoint."""
        if trainer.state.fn == TrainerFn.FITTING:
            groups = checkpoint["optimizer_states"][0]["param_groups"]
            self.before = [float(group["lr"]) for group in groups]

    def state_dict(self) -> dict[str, Any]:
        """Returns the configured rate, so that a run that is killed early sets it again."""
        return {"lr": self.configured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the rate that the checkpoint was trained with."""
        self.trained_at = state_dict["lr"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Checks the schedule, and changes or compares the rates of a resumed run.

        Raises:
            UserError: The schedule ends before the run does, or has come down to 0.
        """
        configs = trainer.lr_scheduler_configs
        schedule = configs[0].scheduler if configs else None
        if configs:
            resumed = self.before is not None
            check_interval(trainer, schedule, configs[0].interval, resumed)
        before = self.before
        self.before = None
        if before is None:
            return
        groups = trainer.optimizers[0].param_groups
        if self.configured is not None and (self.asked or self.configured != self.trained_at):
            # with a rate of 1 the groups have their factors
            units = cast(ObservedModel, pl_module).parameter_groups(1.0)
            factors = {group["name"]: group["lr"] for group in units}
            continue_from(self.configured, trainer.optimizers[0], schedule, factors)
            say(f"the learning rate goes on from {self.configured:.3g}")
            return

        after = max(float(group["lr"]) for group in groups)
        if after > 1.01 * max(before):
            end = getattr(schedule, "total_steps", None)
            ends = f": the schedule now ends at step {end}" if end else ""
            say(
                f"the learning rate goes back up from {max(before):.3g} to {after:.3g}{ends}; for "
                "another rate to go on from add --lr RATE, and --model.scheduler null to keep it"
            )


def check_interval(trainer: L.Trainer, schedule: Any, interval: str, resumed: bool) -> None:
    """Checks schedules that are made to move at each step.

    Raises:
        UserError: One of them ends before the run does.
    """
    if not isinstance(schedule, OneCycleLR | CyclicLR):
        return
    kind = type(schedule).__name__
    if interval == "epoch":
        say(
            f"note: {kind} is made to move at each step; model.scheduler_interval epoch moves it "
            "once an epoch"
        )
    if not isinstance(schedule, OneCycleLR):
        return
    takes = trainer.estimated_stepping_batches if interval == "step" else trainer.max_epochs
    if takes is not None and takes > schedule.total_steps:
        way_out = f"set --model.scheduler.total_steps {takes}"
        if resumed:
            way_out = "go on with --model.scheduler null --lr RATE"
        raise UserError(
            f"model.scheduler {kind} ends at {interval} {schedule.total_steps}, but the run takes "
            f"{takes}: {way_out}"
        )


def continue_from(
    rate: float, optimizer: Optimizer, schedule: Any, factors: Mapping[str, float]
) -> None:
    """Scales the rates, and the rest of the schedule's curve, to a rate for the next step.

    Args:
        rate: The rate of groups without a factor.
        optimizer: The optimizer, whose groups have the rates.
        schedule: The schedule that moves them; None for none.
        factors: {group: factor on the rate}.

    Raises:
        UserError: The schedule has come to its end, where its curve is 0.
    """
    for k, group in enumerate(optimizer.param_groups):
        wanted = rate * factors[group["name"]]
        now = float(group["lr"])
        if schedule is not None:
            if not now and wanted:
                raise UserError(
                    "the schedule has come down to a rate of 0: add --model.scheduler null to go "
                    "on at --lr"
                )
            ratio = wanted / now if now else 1.0
            for key in SCALED:
                if key in group:
                    group[key] = group[key] * ratio
            # max_lrs is CyclicLR's
            for rates in ("base_lrs", "max_lrs"):
                if hasattr(schedule, rates):
                    getattr(schedule, rates)[k] *= ratio
        group["lr"] = wanted
