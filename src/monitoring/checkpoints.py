"""What is kept of the weights: the best by the validation score, and the last to resume from."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint


def between_steps(trainer: L.Trainer) -> bool:
    """Whether a run that starts again from here lacks nothing: no accumulation is half done, and no validation is about to come."""
    loop = trainer.fit_loop.epoch_loop
    if loop._should_accumulate() or loop._num_ready_batches_reached():
        return False
    assert trainer.fit_loop._data_fetcher is not None
    return not loop._should_check_val_fx(trainer.fit_loop._data_fetcher)


class BestCheckpoint(ModelCheckpoint):
    """Keeps best.ckpt: the weights with the highest validation score."""

    state_key = "best checkpoint"  # Lightning's own is made of the settings, at each hook of each step

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            "best",
            monitor="val/score",
            mode="max",
            save_on_train_epoch_end=False,  # there is no score without a validation
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )

    on_train_batch_end = None  # type: ignore[assignment]  # a score is there after a validation alone

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Knows best.ckpt again, wherever the run folder has been moved to."""
        score, here = state_dict["best_model_score"], str(Path(str(self.dirpath)) / "best.ckpt")
        path = "" if score is None else here
        names = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path, "last_model_path": ""}
        super().load_state_dict({**state_dict, **names, "best_k_models": {here: score} if path else {}})


class LastCheckpoint(Checkpoint):
    """Keeps last.ckpt up to date: at the end of each epoch, and ``every_n_steps`` optimizer steps after the last one.

    Args:
        folder: Where it is kept.
        every_n_steps: How many steps may be lost; where a validation is about to come, it is waited for.
    """

    def __init__(self, folder: Path, every_n_steps: int = 500) -> None:
        self.path, self.every_n_steps = folder / "last.ckpt", every_n_steps
        self._saved = 0  # the step of the last one

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Counts from where the run starts."""
        self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves if it is time, and where a limit on steps or time ends the run in the middle of an epoch."""
        due = trainer.global_step - self._saved >= self.every_n_steps
        ends = trainer.should_stop or trainer.fit_loop.epoch_loop._is_training_done
        if (due or ends) and between_steps(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves, after the validation and all that follows from it."""
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.global_step > self._saved:
            trainer.save_checkpoint(self.path)
            self._saved = trainer.global_step
