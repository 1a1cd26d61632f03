"""Which validation was the best, and when to stop waiting for a better one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isnan, nan
from typing import Any, cast

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from src.monitoring.observed_model import ObservedModel
from src.monitoring.say import say
from src.overhead import Quiet

ALL = ""  # the key of all tasks together


@dataclass(frozen=True)
class Validation:
    """The result of a validation, of all tasks or of one.

    Attributes:
        score: Higher is better; NaN where no label defines it.
        loss: The validation loss; NaN without labels.
        epoch: The epoch, counted from 1.
        step: Optimizer steps until then.
    """

    score: float
    loss: float
    epoch: int
    step: int

    def beats(self, other: "Validation | None") -> bool:
        """Returns whether it is better: by the score, or by the loss where scores do not decide.

        A score that is defined beats NaN, and NaN beats the -inf of a task that has diverged.
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
    """Compares each validation with the best so far.

    Where tasks share no weights, each task is compared with its own best.

    Args:
        patience: Stops the run after this many validations without a better one; None never stops
            it.

    Attributes:
        best: The best validation, by task where each has its own, else under :data:`ALL`.
        apart: The names of each task's own weights, where tasks are selected one by one; None: all
            together.
        improved: The keys of ``best`` that the latest validation has improved.
        waited: Validations since the last improvement.
        undefined: Validations without a score.
    """

    state_key = "selection"

    def __init__(self, patience: int | None = None) -> None:
        super().__init__()
        self.patience = patience
        self.best: dict[str, Validation] = {}
        self.apart: Mapping[str, list[tuple[str, int | None]]] | None = None
        self.improved: tuple[str, ...] = ()
        self.waited = 0
        self.undefined = 0
        self.lowest_loss = inf

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finds out whether tasks share weights, and are to be selected one by one.

        A checkpoint in shards cannot be put together from several, so there they are not.
        """
        self.apart = cast(ObservedModel, pl_module).own_weights()
        if self.apart is not None and getattr(trainer.strategy, "checkpoint", "file") == "folder":
            self.apart = None
            say(
                "note: the tasks share no weights, but have one best epoch for all, since "
                "checkpoints are written in parts; for each task its own add "
                "--strategy.checkpoint file"
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compares, and stops the run where nothing was better for too long."""
        self.improved = ()
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        model = cast(ObservedModel, pl_module)
        metrics = trainer.callback_metrics
        at = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        losses = {name: float(metrics[f"val/{name}/loss"]) for name in model.names}
        loss = compute_mean_loss(losses, model.weights)
        score = float(metrics["val/score"])
        latest = {ALL: Validation(score, loss, **at)}
        if self.apart is not None:
            latest = {}
            for name in model.names:
                latest[name] = Validation(model.scores[name], losses[name], **at)
        better = [key for key, one in latest.items() if one.beats(self.best.get(key))]
        self.improved = tuple(better)
        self.best |= {key: latest[key] for key in better}
        self.undefined += isnan(score)

        # without a score a lower loss counts as well, whatever an earlier score was
        progress = bool(self.improved) or (isnan(score) and loss < self.lowest_loss)
        self.lowest_loss = min(self.lowest_loss, inf if isnan(loss) else loss)
        self.waited = 0 if progress else self.waited + 1
        self._stop_if_due(trainer)

    def _stop_if_due(self, trainer: L.Trainer) -> None:
        if self.patience is not None and self.waited >= self.patience:
            trainer.should_stop = True

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Stops a run that had waited long enough; else each resume would train one more epoch."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.load_state_dict(checkpoint["callbacks"].get(self.state_key, self.state_dict()))
            self._stop_if_due(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a later validation is compared with."""
        best = {name: asdict(validation) for name, validation in self.best.items()}
        return {
            "best": best,
            "waited": self.waited,
            "undefined": self.undefined,
            "lowest_loss": self.lowest_loss,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best validations and the counts."""
        self.best = {name: Validation(**values) for name, values in state_dict["best"].items()}
        self.waited = state_dict["waited"]
        self.undefined = state_dict["undefined"]
        self.lowest_loss = state_dict["lowest_loss"]


def compute_mean_loss(losses: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Returns the mean of the tasks' losses, weighted as in training.

    Tasks without labels or weight do not count; NaN where none counts.
    """
    counted = {}
    for name, loss in losses.items():
        if weights[name] > 0 and not isnan(loss):
            counted[name] = weights[name]
    if not counted:
        return nan
    total = sum(losses[name] * weight for name, weight in counted.items())
    return total / sum(counted.values())
