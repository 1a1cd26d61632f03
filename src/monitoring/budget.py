"""How long a run trains where nobody says: a number of optimizer steps, on data of any size.

An epoch of 140 rows is one step, an epoch of 100,000 rows is hundreds: a number of epochs that
suits one starves the other.
"""

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol, cast

import lightning as L

from src.monitoring.check_least import check_least
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
        check_least(self, "budget", {"steps": 1, "min_epochs": 1, "validate_every": 1})
        check_least(self, "budget", {"patience": 1}, ", or null to never stop early")

    def epochs(self, steps_per_epoch: int, every: int | None = None) -> tuple[int, int]:
        """Returns the number of epochs, and the number of epochs from one validation to the next.

        The last epoch ends with a validation, since weights that no validation has seen are never
        the best.

        Args:
            steps_per_epoch: Optimizer steps of one epoch.
            every: Epochs from one validation to the next, where the user has set it.
        """
        epochs = max(ceil(self.steps / steps_per_epoch), self.min_epochs)
        every = every or min(ceil(self.validate_every / steps_per_epoch), epochs)
        if every <= epochs:
            epochs = ceil(epochs / every) * every
        return epochs, every


def has_limit(settings: Mapping[str, Any]) -> bool:
    """Returns whether the Trainer's settings say how long to train.

    trainer.max_time is no such limit: it cuts a run short, but tells a schedule nothing.
    """
    limits = settings["max_epochs"] is not None or settings["max_steps"] not in (None, -1)
    return limits or bool(settings["fast_dev_run"])


class TrainingRows(Protocol):
    """A data module that knows the number of batches in an epoch."""

    def split(self, name: str) -> Any:
        """Returns the rows of a split."""

    def training_batches(self, rows: Any, shuffle: bool) -> Sized:
        """Returns the batches of one epoch over all devices."""


class Limits(L.Callback):
    """Turns a budget into the Trainer's limits once the data are there, and prints them.

    All ranks find the same numbers, since a batch is one over all of them.

    Args:
        budget: How long to train.
        every: Epochs from one validation to the next; None: as the budget says.
        patience: Validations without a better score after which the run stops; None for never.
    """

    def __init__(self, budget: Budget, every: int | None, patience: int | None) -> None:
        self.budget = budget
        self.every = every
        self.patience = patience
        self.steps_per_epoch = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Sets the limits before the learning-rate schedule asks for the number of steps."""
        if stage != "fit":
            return
        self.steps_per_epoch = count_steps(trainer)
        epochs, every = self.budget.epochs(self.steps_per_epoch, self.every)
        trainer.fit_loop.max_epochs = epochs
        # None means that validation is counted in batches
        if trainer.check_val_every_n_epoch is not None:
            trainer.check_val_every_n_epoch = every

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints how long the run will train."""
        say(self.describe(trainer))

    def describe(self, trainer: L.Trainer) -> str:
        """Returns the limits in words."""
        epochs = cast(int, trainer.max_epochs)
        steps = epochs * self.steps_per_epoch
        words = [f"trains {steps:,} steps: {format_count(epochs, 'epoch')}"]
        every = trainer.check_val_every_n_epoch
        if trainer.limit_val_batches and trainer.val_check_interval in (None, 1.0) and every:
            period = format_count(every, "epoch") if every > 1 else "epoch"
            words.append(f"validates every {period}")
        if self.patience is not None:
            validations = format_count(self.patience, "validation")
            words.append(f"stops after {validations} without a better score")
        return ", ".join(words)


def count_steps(trainer: L.Trainer) -> int:
    """Returns the number of optimizer steps in an epoch, within the Trainer's limits."""
    data = cast(TrainingRows, cast(Any, trainer).datamodule)
    batches = len(data.training_batches(data.split("train"), shuffle=True))
    # --overfit_batches sets this limit, too
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return max(1, ceil(batches / trainer.accumulate_grad_batches))


def format_count(number: int, word: str) -> str:
    """Returns a number with its word, in the plural where it needs one."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
