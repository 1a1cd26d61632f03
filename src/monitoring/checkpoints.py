"""What is kept of the weights: the best by the validation score, and the last to resume from."""

from pathlib import Path

from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Keeps best.ckpt: the weights with the highest validation score."""

    state_key = "best checkpoint"  # Lightning's own is made of the settings, at each hook of each step

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder, "best", monitor="val/score", mode="max", enable_version_counter=False, auto_insert_metric_name=False
        )


class LastCheckpoint(ModelCheckpoint):
    """Keeps last.ckpt up to date: every ``every_n_steps`` optimizer steps and at the end of each epoch."""

    state_key = "last checkpoint"

    def __init__(self, folder: Path, every_n_steps: int = 500) -> None:
        super().__init__(
            folder, "last", every_n_train_steps=every_n_steps, enable_version_counter=False, auto_insert_metric_name=False
        )
        self._every_n_epochs = 1  # besides the steps; ModelCheckpoint's arguments allow one of the two
