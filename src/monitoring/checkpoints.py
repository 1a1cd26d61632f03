"""The checkpoints of a run: the best in validation, and the last to resume from."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast
from weakref import proxy

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor

from src.checkpoint import load_checkpoint, merge_weights
from src.monitoring.observed_model import ObservedModel
from src.monitoring.selection import Selection
from src.tasks.score import compute_mean

SHORT = 25  # optimizer steps: fewer are not worth a save of their own


def is_between_steps(trainer: L.Trainer) -> bool:
    """Returns whether a run can start again from here.

    No accumulation is half done, and no validation is about to come.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop._should_accumulate() or loop._num_ready_batches_reached():
        return False
    assert trainer.fit_loop._data_fetcher is not None
    return not loop._should_check_val_fx(trainer.fit_loop._data_fetcher)


def start_next_epoch(trainer: L.Trainer) -> None:
    """Lets a run that is resumed from the end of an epoch start the next one.

    Where steps are limited, Lightning would go back into the epoch that is over, and take one more
    step in it.
    """
    loop = trainer.fit_loop
    if not loop.restarted_on_epoch_end:
        return
    loop.epoch_progress.increment_completed()
    # nothing in these loops is half done
    for inner in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
        inner.on_iteration_done()


class BestCheckpoint(ModelCheckpoint):
    """Keeps best.ckpt: the weights of the best validation.

    Where tasks share no weights, each task has the weights of its own best validation. Where each
    has its own patience, the checkpoint holds the whole network for each validation that was the
    best of a task.

    Args:
        folder: The folder of checkpoints.
        selection: Knows which validation was the best.
    """

    # Lightning would make a key of the settings, at each hook of each step
    state_key = "best checkpoint"

    def __init__(self, folder: Path, selection: Selection) -> None:
        super().__init__(
            folder, "best", save_on_train_epoch_end=False, enable_version_counter=False
        )
        self.path = folder / "best.ckpt"
        self.selection = selection
        self._saving = False

    # a step has no validation to compare
    on_train_batch_end = None  # type: ignore[assignment]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves if the validation has improved anything."""
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
        selection = self.selection
        model = cast(ObservedModel, pl_module)
        names = model.names
        if not self._saving or not selection.by_task or not trainer.is_global_zero:
            return
        scores = {task: best.score for task, best in selection.best.items()}
        checkpoint["metrics"] = {"val/score": compute_mean(scores, model.score_weights)}
        kept = [task for task in selection.best if task not in selection.improved]
        if kept and self.path.exists():
            # tensors are read as they are written again
            earlier = load_checkpoint(self.path, mmap=True)
            if selection.apart is None:
                merge_weights(checkpoint, earlier, names, kept)
            else:
                places = [place for task in kept for place in selection.apart[task]]
                restore_entries(checkpoint["state_dict"], earlier["state_dict"], places)
            checkpoint["tasks"] = {task: earlier["tasks"][task] for task in kept}
            for key, value in earlier["metrics"].items():
                if find_task(key, names) in kept:
                    checkpoint["metrics"][key] = value

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing: the selection keeps the best validations."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Finds best.ckpt again, wherever the run folder has been moved to."""
        self.best_model_path = str(self.path) if self.path.exists() else ""


def restore_entries(
    state: dict[str, Tensor], earlier: Mapping[str, Tensor], places: list[tuple[str, int | None]]
) -> None:
    """Replaces entries of a state by earlier ones; the model's own tensors stay as they are.

    Args:
        state: The state, which is changed.
        earlier: The earlier state.
        places: (name, row along the first dimension); None for the whole entry.
    """
    rows_of: dict[str, list[int]] = {}
    for name, row in places:
        # a buffer may be one that is never saved
        if name not in state:
            continue
        if row is None:
            state[name] = earlier[name]
        else:
            rows_of.setdefault(name, []).append(row)
    for name, rows in rows_of.items():
        state[name] = state[name].clone()
        state[name][rows] = earlier[name][rows].to(state[name])


def find_task(key: str, names: Iterable[str]) -> str | None:
    """Returns the task of a metric, <stage>/<task>/...; of names that begin alike the longest."""
    _, _, rest = key.partition("/")
    fitting = [name for name in names if rest.startswith(f"{name}/")]
    return max(fitting, key=len, default=None)


class LastCheckpoint(Checkpoint):
    """Keeps last.ckpt up to date: at the end of each epoch, and every ``every_n_steps`` steps.

    Epochs of a few steps are not saved one by one: a save may take longer than such an epoch.

    Args:
        folder: The folder of checkpoints.
        every_n_steps: Optimizer steps that may be lost. If a validation is about to come, the save
            comes after it.
        then: Called at the end of an epoch, after the save.
    """

    def __init__(
        self,
        folder: Path,
        every_n_steps: int = 500,
        then: Callable[[L.Trainer], None] | None = None,
    ) -> None:
        self.path = folder / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.then = then
        self._saved = 0  # the step of the latest save

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the weights of a run without a step, which may have come from another run."""
        if 0 in (trainer.max_epochs, trainer.max_steps) and not self.path.exists():
            trainer.save_checkpoint(self.path)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Counts steps from the one that the run starts at."""
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
        """Saves if it is time, or if a limit ends the run in the middle of an epoch."""
        due = trainer.global_step - self._saved >= self.every_n_steps
        ends = trainer.should_stop or trainer.fit_loop.epoch_loop._is_training_done
        if (due or ends) and is_between_steps(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves after the validation and its callbacks; always at the end of the run."""
        epochs = cast(Any, trainer.fit_loop.epoch_progress.current).processed
        steps = trainer.global_step
        ends = trainer.should_stop or epochs == trainer.max_epochs or steps == trainer.max_steps
        if ends or steps - self._saved >= min(SHORT, self.every_n_steps):
            self._save(trainer)
        if self.then:
            self.then(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.global_step > self._saved:
            trainer.save_checkpoint(self.path)
            self._saved = trainer.global_step
