"""How far a run has come, as a file: what another process watches it by, and curves are drawn of.

``progress.json`` in the run folder holds each validation so far. Event files of TensorBoard would
have to be parsed as a whole for each look.
"""

import time
from math import ceil
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from src.files.atomic import write_atomically
from src.files.typed import read_json, to_json
from src.monitoring.observed_model import ObservedModel
from src.monitoring.watcher import Watcher

NAME = "progress.json"


class Point(TypedDict):
    """One validation.

    Attributes:
        step: Optimizer steps until then.
        epoch: The epoch, counted from 1.
        seconds: Time of training until then, over all sessions of the run.
        score: The score; None where no label defines it.
        tasks: {task: its own score}; higher is better.
    """

    step: int
    epoch: int
    seconds: float
    score: float | None
    tasks: dict[str, float | None]


class Progress(TypedDict):
    """The content of the file.

    Attributes:
        step: Optimizer steps at the latest validation.
        steps: Optimizer steps that the run may take; None where nobody knows.
        validations: The validations so far.
    """

    step: int
    steps: NotRequired[int | None]
    validations: list[Point]


class ProgressFile(Watcher):
    """Writes the file when training starts, and after each validation.

    A resumed run keeps the validations up to its checkpoint, so that none is counted twice.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.points: list[Point] = []
        self.steps: int | None = None
        self._started = 0.0  # when training would have started, had it never been interrupted

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reads what an earlier session has seen, and writes how long the run will be."""
        if not trainer.is_global_zero:
            return
        if trainer.global_step and self.path.is_file():
            known = cast(Progress, read_json(self.path, Progress))["validations"]
            self.points = [point for point in known if point["step"] <= trainer.global_step]
        before = self.points[-1]["seconds"] if self.points else 0.0
        self._started = time.monotonic() - before
        self.steps = count_all_steps(trainer)
        self._write(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds a validation of the training."""
        fits = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not (fits and trainer.is_global_zero):
            return
        scores = cast(ObservedModel, pl_module).scores
        self.points.append(
            {
                "step": trainer.global_step,
                "epoch": trainer.current_epoch + 1,
                "seconds": round(time.monotonic() - self._started, 3),
                "score": float(trainer.callback_metrics["val/score"]),
                "tasks": {name: float(score) for name, score in scores.items()},
            }
        )
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        content: Progress = {
            "step": trainer.global_step,
            "steps": self.steps,
            "validations": self.points,
        }
        write_atomically(self.path, lambda file: file.write(to_json(content)))


def count_all_steps(trainer: L.Trainer) -> int | None:
    """Returns the optimizer steps that the limits allow; None where there is no limit."""
    limits = []
    if trainer.max_steps > 0:
        limits.append(trainer.max_steps)
    batches = trainer.num_training_batches
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and batches != float("inf"):
        limits.append(trainer.max_epochs * ceil(batches / trainer.accumulate_grad_batches))
    return min(limits) if limits else None
