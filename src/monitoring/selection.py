"""Which validation was the best, and when to stop waiting for a better one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isnan, nan
from typing import Any, cast

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from src.monitoring.observed_model import ObservedModel
from src.monitoring.quiet import Quiet
from src.monitoring.say import say

ALL = ""  # the place of all tasks together


@dataclass(frozen=True)
class Validation:
    """What a validation has shown, of all tasks or of one.

    Attributes:
        score: Higher is better; NaN where no label defines it.
        loss: The validation loss; NaN without labels.
        epoch: The epoch it came in, counted from 1.
        step: Optimizer steps until then.
    """

    score: float
    loss: float
    epoch: int
    step: int

    def beats(self, other: "Validation | None") -> bool:
        """Whether it is better: by the score, or by the loss where scores are the same or not defined.

        A defined score beats one that is not, and one that is not beats the -inf of a task that has
        diverged.
        """
        if isnan(self.score) and isnan(self.loss):
            return False
        if other is None:
            return True
        if isnan(self.score):
            return self.loss < other.loss if isnan(other.score) else other.score == -inf
        if isnan(other.score):
            return self.score > -inf
        # an AUROC of 1 stays 1 while the probabilities behind it still become better
        return self.score > other.score or (self.score == other.score and self.loss < other.loss)


class Selection(Quiet):
    """Compares each validation with the best so far; where tasks share no weights, each task's with its own best.

    Args:
        patience: Stops the run after this many validations without a better one; None never stops
            it.

    Attributes:
        best: The best validation, by task where each has its own, else under :data:`ALL`.
        apart: The names of each task's own weights, where tasks are selected one by one; None: all
            together.
        improved: What the latest validation has improved, keys of ``best``.
        waited: Validations since the last that improved anything.
        undefined: Validations without a score.
    """

    state_key = "selection"

    def __init__(self, patience: int | None = None) -> None:
        super().__init__()
        self.patience = patience
        self.best: dict[str, Validation] = {}
        self.apart: Mapping[str, list[tuple[str, int | None]]] | None = None
        self.improved: tuple[str, ...] = ()
        self.waited = self.undefined = 0
        self.lowest_loss = inf

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finds out whether tasks share weights; a checkpoint in parts cannot be put together from several."""
        self.apart = cast(ObservedModel, pl_module).own_weights()
        if self.apart is not None and getattr(trainer.strategy, "checkpoint", "file") == "folder":
            self.apart = None
            say(
                "note: the tasks share no weights, but have one best epoch for all, since checkpoints are written in parts; "
                "for each task its own add --strategy.checkpoint file"
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compares, and stops the run where nothing has been better for too long."""
        self.improved = ()
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        model, metrics = cast(ObservedModel, pl_module), trainer.callback_metrics
        at = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        loss = mean_loss(
            {name: float(metrics[f"val/{name}/loss"]) for name in model.names}, model.weights
        )
        score = float(metrics["val/score"])
        seen = {ALL: Validation(score, loss, **at)}
        if self.apart is not None:
            seen = {
                name: Validation(model.scores[name], float(metrics[f"val/{name}/loss"]), **at)
                for name in model.names
            }
        self.improved = tuple(
            name for name, validation in seen.items() if validation.beats(self.best.get(name))
        )
        self.best |= {name: seen[name] for name in self.improved}
        self.undefined += isnan(score)

        # without a score a lower loss is news as well, whatever an earlier score was
        news = bool(self.improved) or (isnan(score) and loss < self.lowest_loss)
        self.lowest_loss = min(self.lowest_loss, inf if isnan(loss) else loss)
        self.waited = 0 if news else self.waited + 1
        self._stop_if_due(trainer)

    def _stop_if_due(self, trainer: L.Trainer) -> None:
        if self.patience is not None and self.waited >= self.patience:
            trainer.should_stop = True

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps a run that had waited long enough from training one epoch more each time that it is resumed."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.load_state_dict(checkpoint["callbacks"].get(self.state_key, self.state_dict()))
            self._stop_if_due(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that a later validation is compared with."""
        best = {name: asdict(validation) for name, validation in self.best.items()}
        return {
            "best": best,
            "waited": self.waited,
            "undefined": self.undefined,
            "lowest_loss": self.lowest_loss,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.best = {name: Validation(**values) for name, values in state_dict["best"].items()}
        self.waited, self.undefined = state_dict["waited"], state_dict["undefined"]
        self.lowest_loss = state_dict["lowest_loss"]


def mean_loss(losses: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The mean of the tasks' losses, weighed as training weighs them; tasks without labels or weight do not count."""
    counted = {
        name: weights[name]
        for name, loss in losses.items()
        if weights[name] > 0 and not isnan(loss)
    }
    if not counted:
        return nan
    return sum(losses[name] * weight for name, weight in counted.items()) / sum(counted.values())
