"""Which validation was the best, and when to stop waiting for a better one."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from math import inf, isnan
from typing import Any, cast

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from src.monitoring.budget import format_count
from src.monitoring.observed_model import ObservedModel
from src.monitoring.say import say
from src.overhead import Quiet
from src.tasks.score import compute_mean

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


@dataclass
class Wait:
    """Counts validations since the last progress.

    Attributes:
        waited: Validations since then.
        lowest_loss: The lowest loss so far.
    """

    waited: int = 0
    lowest_loss: float = inf

    def count(self, improved: bool, score: float, loss: float) -> None:
        """Counts a validation.

        Args:
            improved: Whether it is the best so far.
            score: Its score.
            loss: Its loss.
        """
        # without a score a lower loss counts as well, whatever an earlier score was
        progress = improved or (isnan(score) and loss < self.lowest_loss)
        self.lowest_loss = min(self.lowest_loss, inf if isnan(loss) else loss)
        self.waited = 0 if progress else self.waited + 1


class Selection(Quiet):
    """Compares each validation with the best so far.

    Each task is compared with its own best where tasks share no weights, or where each of them has
    its own patience.

    Args:
        patience: Stops the run after this many validations without a better one; None never stops
            it.
        patience_by_task: Stops the training of a task after this many validations in which it was
            not better, and the run when no task is left; None never does.

    Attributes:
        best: The best validation, by task where each has its own, else under :data:`ALL`.
        apart: The names of each task's own weights, where tasks share none and a checkpoint can be
            put together from several; else None.
        improved: The keys of ``best`` that the latest validation has improved.
        waits: {ALL or task: the count of validations without progress}.
        undefined: Validations without a score.
    """

    state_key = "selection"

    def __init__(self, patience: int | None = None, patience_by_task: int | None = None) -> None:
        super().__init__()
        self.patience = patience
        self.patience_by_task = patience_by_task
        self.best: dict[str, Validation] = {}
        self.apart: Mapping[str, list[tuple[str, int | None]]] | None = None
        self.improved: tuple[str, ...] = ()
        self.waits: dict[str, Wait] = {ALL: Wait()}
        self.undefined = 0

    @property
    def by_task(self) -> bool:
        """Whether each task has a best validation of its own."""
        return self.apart is not None or self.patience_by_task is not None

    @property
    def stopped(self) -> list[str]:
        """The tasks that have waited long enough."""
        patience = self.patience_by_task
        if patience is None:
            return []
        return [key for key, wait in self.waits.items() if key != ALL and wait.waited >= patience]

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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves out tasks that had stopped before the run was resumed."""
        cast(ObservedModel, pl_module).stop_tasks(self.stopped)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compares, and stops tasks or the run where nothing was better for too long."""
        self.improved = ()
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        model = cast(ObservedModel, pl_module)
        metrics = trainer.callback_metrics
        at = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        losses = {name: float(metrics[f"val/{name}/loss"]) for name in model.names}
        # each loss as much as in training, and as its task counts in the score
        weights = {name: model.weights[name] * model.score_weights[name] for name in model.names}
        overall = Validation(float(metrics["val/score"]), compute_mean(losses, weights), **at)
        latest = {ALL: overall}
        stopped = self.stopped
        if self.by_task:
            latest = {}
            for name in model.names:
                if name not in stopped:
                    latest[name] = Validation(model.scores[name], losses[name], **at)

        better = [key for key, one in latest.items() if one.beats(self.best.get(key))]
        self.improved = tuple(better)
        self.best |= {key: latest[key] for key in better}
        self.undefined += isnan(overall.score)

        # the run waits for the tasks that count
        counted = [key for key in better if key == ALL or model.score_weights[key] > 0]
        self.waits[ALL].count(bool(counted), overall.score, overall.loss)
        if self.patience_by_task is not None:
            self._wait_for_tasks(latest)
            model.stop_tasks(self.stopped)
            say_who_stopped(self.best, self.waits, [t for t in self.stopped if t not in stopped])
        self._stop_if_due(trainer, model.names)

    def _wait_for_tasks(self, latest: Mapping[str, Validation]) -> None:
        for name, one in latest.items():
            # a validation without a label of the task says nothing about it
            if not isnan(one.score) or not isnan(one.loss):
                wait = self.waits.setdefault(name, Wait())
                wait.count(name in self.improved, one.score, one.loss)

    def _stop_if_due(self, trainer: L.Trainer, names: Collection[str]) -> None:
        waited = self.waits[ALL].waited
        if self.patience is not None and waited >= self.patience:
            trainer.should_stop = True
        if len(self.stopped) == len(names):
            trainer.should_stop = True

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Stops a run that had waited long enough; else each resume would train one more epoch."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.load_state_dict(checkpoint["callbacks"].get(self.state_key, self.state_dict()))
            self._stop_if_due(trainer, cast(ObservedModel, pl_module).names)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a later validation is compared with."""
        best = {name: asdict(validation) for name, validation in self.best.items()}
        tasks = {name: asdict(wait) for name, wait in self.waits.items() if name != ALL}
        return {
            "best": best,
            **asdict(self.waits[ALL]),
            "undefined": self.undefined,
            "tasks": tasks,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best validations and the counts."""
        self.best = {name: Validation(**values) for name, values in state_dict["best"].items()}
        self.waits = {ALL: Wait(state_dict["waited"], state_dict["lowest_loss"])}
        for name, values in state_dict.get("tasks", {}).items():
            self.waits[name] = Wait(**values)
        self.undefined = state_dict["undefined"]


def say_who_stopped(
    best: Mapping[str, Validation], waits: Mapping[str, Wait], names: Collection[str]
) -> None:
    """Says which tasks train no longer, and which epoch was their best."""
    for name in names:
        waited = format_count(waits[name].waited, "validation")
        say(
            f"task '{name}' has not been better in {waited}: its head is "
            f"frozen and its loss left out (best epoch {best[name].epoch})"
        )
