"""What is kept of the weights: the best in validation, and the last to resume from."""

from collections.abc import Callable, Iterable, Mapping
from math import isnan, nan
from pathlib import Path
from typing import Any, cast
from weakref import proxy

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor

from src.monitoring.observed_model import ObservedModel
from src.monitoring.selection import Selection

SHORT = 25  # optimizer steps: fewer are not worth a save of their own


def between_steps(trainer: L.Trainer) -> bool:
    """Whether a run that starts again from here lacks nothing: no accumulation is half done, and no validation is about to come."""
    loop = trainer.fit_loop.epoch_loop
    if loop._should_accumulate() or loop._num_ready_batches_reached():
        return False
    assert trainer.fit_loop._data_fetcher is not None
    return not loop._should_check_val_fx(trainer.fit_loop._data_fetcher)


def start_next_epoch(trainer: L.Trainer) -> None:
    """Lets a run that is resumed from the end of an epoch start the next one.

    Where steps are limited Lightning goes back into the epoch that is over, and takes one step more
    in it.
    """
    loop = trainer.fit_loop
    if not loop.restarted_on_epoch_end:
        return
    loop.epoch_progress.increment_completed()
    for each in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
        each.on_iteration_done()  # nothing of them is half done


class BestCheckpoint(ModelCheckpoint):
    """Keeps best.ckpt: the weights of the best validation; of tasks that share none, each task's of its own best one.

    Args:
        folder: Where it is kept.
        selection: Knows which validation was the best.
    """

    state_key = (
        "best checkpoint"  # Lightning's own is made of the settings, at each hook of each step
    )

    def __init__(self, folder: Path, selection: Selection) -> None:
        super().__init__(
            folder, "best", save_on_train_epoch_end=False, enable_version_counter=False
        )
        self.path, self.selection = folder / "best.ckpt", selection
        self._saving = False

    on_train_batch_end = None  # type: ignore[assignment]  # there is nothing to compare without a validation

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves what the validation has improved."""
        if not self.selection.improved:
            return
        self._saving = True
        try:
            trainer.save_checkpoint(self.path)
        finally:
            self._saving = False
        self.best_model_path = str(self.path)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Puts back the weights and metrics of tasks that were better in an earlier validation."""
        selection, names = self.selection, cast(ObservedModel, pl_module).names
        if not self._saving or selection.apart is None or not trainer.is_global_zero:
            return
        known = [best.score for best in selection.best.values() if not isnan(best.score)]
        checkpoint["metrics"] = {"val/score": sum(known) / len(known) if known else nan}
        kept = [task for task in selection.best if task not in selection.improved]
        if kept and self.path.exists():
            earlier = trainer.strategy.load_checkpoint(self.path)
            put_back(
                checkpoint["state_dict"],
                earlier["state_dict"],
                [place for task in kept for place in selection.apart[task]],
            )
            checkpoint["tasks"] = {task: earlier["tasks"][task] for task in kept}
            for key, value in earlier["metrics"].items():
                if task_of(key, names) in kept:
                    checkpoint["metrics"][key] = value

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing: what was best is the selection's to remember."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Knows best.ckpt again, wherever the run folder has been moved to."""
        self.best_model_path = str(self.path) if self.path.exists() else ""


def put_back(
    state: dict[str, Tensor], earlier: Mapping[str, Tensor], places: list[tuple[str, int | None]]
) -> None:
    """Replaces entries of a state, or parts along their first dimension, by earlier ones; the model's own tensors stay."""
    parts: dict[str, list[int]] = {}
    for name, part in places:
        if name not in state:  # a buffer that is never saved
            continue
        if part is None:
            state[name] = earlier[name]
        else:
            parts.setdefault(name, []).append(part)
    for name, rows in parts.items():
        state[name] = state[name].clone()
        state[name][rows] = earlier[name][rows].to(state[name])


def task_of(key: str, names: Iterable[str]) -> str | None:
    """The task that a validation metric is of; of names that begin alike the longest that fits."""
    return max((name for name in names if key.startswith(f"val/{name}/")), key=len, default=None)


class LastCheckpoint(Checkpoint):
    """Keeps last.ckpt up to date: at the end of each epoch, and ``every_n_steps`` optimizer steps after the last one.

    Epochs of a few steps are not saved one by one: a save may take longer than such an epoch.

    Args:
        folder: Where it is kept.
        every_n_steps: How many steps may be lost; where a validation is about to come, it is waited
            for.
        then: What comes last in an epoch, after this.
    """

    def __init__(
        self,
        folder: Path,
        every_n_steps: int = 500,
        then: Callable[[L.Trainer], None] | None = None,
    ) -> None:
        self.path, self.every_n_steps, self.then = folder / "last.ckpt", every_n_steps, then
        self._saved = 0  # the step of the last one

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Counts from where the run starts."""
        self._saved = trainer.global_step
        start_next_epoch(trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves if it is time, and where a limit on steps or time ends the run in the middle of an epoch."""
        due = trainer.global_step - self._saved >= self.every_n_steps
        ends = trainer.should_stop or trainer.fit_loop.epoch_loop._is_training_done
        if (due or ends) and between_steps(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves, after the validation and all that follows from it; always where the run ends."""
        epochs, steps = (
            cast(Any, trainer.fit_loop.epoch_progress.current).processed,
            trainer.global_step,
        )
        ends = trainer.should_stop or epochs == trainer.max_epochs or steps == trainer.max_steps
        if ends or steps - self._saved >= min(SHORT, self.every_n_steps):
            self._save(trainer)
        if self.then:
            self.then(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.global_step > self._saved:
            trainer.save_checkpoint(self.path)
            self._saved = trainer.global_step
