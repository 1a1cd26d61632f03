"""What is kept of the weights: the best by the validation score, and the last to resume from."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keeps last.ckpt up to date: every ``every_n_steps`` optimizer steps and at the end of each epoch."""

    def __init__(self, folder: Path, every_n_steps: int = 500) -> None:
        super().__init__(folder, "last", every_n_train_steps=every_n_steps, enable_version_counter=False, auto_insert_metric_name=False)
        self._every_n_epochs = 1  # besides the steps; ModelCheckpoint's arguments allow one of the two


def best_checkpoint(folder: Path, monitor: str = "val/score") -> ModelCheckpoint:
    """Keeps best.ckpt: the weights with the highest validation score."""
    settings: dict[str, Any] = dict(monitor=monitor, mode="max", save_top_k=1, save_weights_only=False)
    return ModelCheckpoint(folder, "best", enable_version_counter=False, auto_insert_metric_name=False, **settings)
