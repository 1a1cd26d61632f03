"""How long a run trains where nobody says: a number of optimizer steps, whatever the size of its data.

An epoch of 140 rows is one step, an epoch of 100,000 rows is hundreds: a number of epochs that
suits one starves the other.
"""

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol, cast

import lightning as L

from src.errors import UserError
from src.monitoring.say import say


@dataclass
class Budget:
    """How long a run trains where trainer.max_epochs and max_steps are null.

    Args:
        steps: Optimizer steps at least, in whole epochs.
        min_epochs: Epochs at least, which count where an epoch has many steps.
        validate_every: Fewest optimizer steps between two validations, each at the end of an epoch.
        patience: Stop after this many validations without a better score; None never stops early.
            Where watch.patience is set, it counts instead.
    """

    steps: int = 1000
    min_epochs: int = 10
    validate_every: int = 15
    patience: int | None = 30

    def __post_init__(self) -> None:
        for name in ("steps", "min_epochs", "validate_every"):
            if getattr(self, name) < 1:
                raise UserError(f"budget.{name} is {getattr(self, name)}; it must be at least 1")
        if self.patience is not None and self.patience < 1:
            raise UserError(
                f"budget.patience is {self.patience}; it must be at least 1, or null to never stop early"
            )

    def epochs(self, steps_per_epoch: int, every: int | None = None) -> tuple[int, int]:
        """Returns the number of epochs, and every which one of them ends with a validation.

        The last epoch is one of them, since weights that no validation has seen are never the best.

        Args:
            steps_per_epoch: Optimizer steps of one epoch.
            every: Epochs from one validation to the next, where the user has said so.
        """
        epochs = max(ceil(self.steps / steps_per_epoch), self.min_epochs)
        every = every or min(ceil(self.validate_every / steps_per_epoch), epochs)
        if every <= epochs:
            epochs = ceil(epochs / every) * every
        return epochs, every


def has_limit(settings: Mapping[str, Any]) -> bool:
    """Returns whether the Trainer's settings say how long to train; a time cuts a run short, and says nothing to a schedule."""
    limits = settings["max_epochs"] is not None or settings["max_steps"] not in (None, -1)
    return limits or bool(settings["fast_dev_run"])


class TrainingRows(Protocol):
    """A data module that can say how many batches an epoch has."""

    def split(self, name: str) -> Any:
        """Returns the rows of a split."""

    def training_batches(self, rows: Any, shuffle: bool) -> Sized:
        """Returns the batches of one epoch over all devices."""


class Limits(L.Callback):
    """Turns a budget into the Trainer's limits once the data are there, and says them.

    All ranks find the same numbers, since a batch is one over all of them.

    Args:
        budget: How long to train.
        every: Epochs from one validation to the next; None: as the budget says.
        patience: Validations without a better score after which the run stops; None for never.
    """

    def __init__(self, budget: Budget, every: int | None, patience: int | None) -> None:
        self.budget, self.every, self.patience = budget, every, patience
        self.steps_per_epoch = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Sets the limits before the learning-rate schedule asks for the number of steps."""
        if stage != "fit":
            return
        self.steps_per_epoch = steps_per_epoch(trainer)
        epochs, every = self.budget.epochs(self.steps_per_epoch, self.every)
        trainer.fit_loop.max_epochs = epochs
        if trainer.check_val_every_n_epoch is not None:  # else validation is counted in batches
            trainer.check_val_every_n_epoch = every

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says how long the run will train."""
        say(self.line(trainer))

    def line(self, trainer: L.Trainer) -> str:
        """Returns the limits in words."""
        epochs = cast(int, trainer.max_epochs)
        words = [f"trains {epochs * self.steps_per_epoch:,} steps: {counted(epochs, 'epoch')}"]
        every = cast(Any, trainer).check_val_every_n_epoch
        if trainer.limit_val_batches and trainer.val_check_interval in (None, 1.0) and every:
            words.append(f"validates every {counted(every, 'epoch') if every > 1 else 'epoch'}")
        if self.patience is not None:
            words.append(
                f"stops after {counted(self.patience, 'validation')} without a better score"
            )
        return ", ".join(words)


def steps_per_epoch(trainer: L.Trainer) -> int:
    """Returns the number of optimizer steps in an epoch, as the Trainer's limits leave it."""
    data = cast(TrainingRows, cast(Any, trainer).datamodule)
    batches = len(data.training_batches(data.split("train"), shuffle=True))
    limit = trainer.limit_train_batches  # of the few that --overfit_batches leaves, too
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return max(1, ceil(batches / trainer.accumulate_grad_batches))


def counted(number: int, word: str) -> str:
    """Returns a number with its word, in the plural where it needs one."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
