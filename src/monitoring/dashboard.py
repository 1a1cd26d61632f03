"""TensorBoard: training curves, one page that lays all tasks side by side, the config as text."""

import os
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from src.collectives import replica
from src.monitoring.observed_model import ObservedModel
from src.monitoring.watcher import Watcher, attempt, warn
from src.tasks import Task


class Board(TensorBoardLogger):
    """The event files of one run, in its folder; where they cannot be written any more, the run goes on without them.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False, flush_secs=10)
        self.left_out = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Draws what is a curve: the epoch is none, and the test is one point, which the table of runs shows."""
        curves = {
            tag: value
            for tag, value in metrics.items()
            if tag != "epoch" and not tag.startswith("test/")
        }
        self._try(partial(super().log_metrics, curves, step))

    @rank_zero_only
    def flush(self) -> None:
        """Puts all on disk."""
        self._try(self.experiment.flush)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Puts all on disk and closes the file."""
        self._try(partial(super().finalize, status))

    def _try(self, write: Callable[[], object]) -> None:
        error = None if self.left_out else attempt(write)
        if error is not None:
            self.left_out = True
            warn("TensorBoard", error)

    @rank_zero_only
    def save(self) -> None:
        """Leaves out Lightning's hparams.yaml: the run folder has its config.yaml."""


def board(trainer: L.Trainer) -> TensorBoardLogger | None:
    """The run's TensorBoard logger, where this rank has one that can be written."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    found = next((logger for logger in loggers if isinstance(logger, TensorBoardLogger)), None)
    return None if getattr(found, "left_out", False) else found


class Dashboard(Watcher):
    """Logs train/<task>/loss, train/penalty, weight/<task>, lr/<group> and throughput.

    Every ``log_every_n_steps`` steps and at the end of each epoch; penalty and weights are of the
    latest step.

    A loss is the mean over all labels since the last point. The model adds them up on the device;
    they are read here, rarely: Lightning's ``self.log`` on each step would cost more than the step
    itself from a few tasks on.

    Args:
        config: The resolved configuration as YAML, shown on the text page.
    """

    def __init__(self, config: str = "") -> None:
        self.config = config
        self.latest: dict[str, float] = {}
        self._lost: dict[
            Path, int
        ] = {}  # what event files hold beyond a checkpoint, see later_events()
        self._restart(0)

    def _restart(self, step: int) -> None:
        self.step, self.samples, self.clock = step, 0, time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the page layout and the config."""
        self._restart(trainer.global_step)
        logger = board(trainer)
        if logger is None:
            return
        self._go_back()
        writer = logger.experiment
        # a TensorBoard that is open has read them already: it forgets the steps that are about to
        # come again
        step = trainer.global_step + 1 if trainer.global_step else 0
        restart = Event(step=step, session_log=SessionLog(status=SessionLog.START))
        writer._get_file_writer().add_event(restart)
        writer.add_custom_scalars(
            {"tasks side by side": charts(cast(ObservedModel, pl_module).tasks)}
        )
        writer.add_text(
            "config",
            "\n".join("    " + line for line in self.config.splitlines()),
            trainer.global_step,
        )

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Logs if it is time."""
        self.samples += len(batch)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step - self.step >= every:
            self.flush(trainer, cast(ObservedModel, pl_module))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs what was trained before the clock stops."""
        self.flush(trainer, cast(ObservedModel, pl_module))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock again: throughput is that of training."""
        self.clock = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs what the epoch still holds."""
        self.flush(trainer, cast(ObservedModel, pl_module))

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Puts on disk all that happened before the checkpoint, so that a run resumed from it has no gap in its curves."""
        self.flush(trainer, cast(ObservedModel, pl_module))
        if isinstance(logger := board(trainer), Board):
            logger.flush()
            files = event_files(Path(logger.log_dir))
            checkpoint["events"] = {path.name: path.stat().st_size for path in files}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Finds out what has been written after the checkpoint from which training goes on."""
        logger = board(trainer)
        if logger is not None and trainer.state.fn == TrainerFn.FITTING:
            self._lost = later_events(Path(logger.log_dir), checkpoint.get("events"))

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Clears away an earlier test, where nothing was left to train."""
        self._go_back()

    def _go_back(self) -> None:
        """Takes back what is about to come again: nothing stands twice at a step."""
        for path, size in self._lost.items():
            if size:
                os.truncate(path, size)
            else:
                path.unlink()
        self._lost = {}

    def flush(self, trainer: L.Trainer, model: ObservedModel) -> None:
        """Writes the mean losses since the last time, and starts anew."""
        sums, counts = model.step.sums_2T.tolist()
        if not any(counts):
            return
        model.step.sums_2T.zero_()
        seconds = time.monotonic() - self.clock
        values = {
            f"train/{n}/loss": s / c for n, s, c in zip(model.names, sums, counts, strict=True) if c
        }
        self.latest = dict(values)
        values["throughput/samples_per_second"] = self.samples * replica()[1] / max(seconds, 1e-9)
        if model.step.weights_T is not None:
            values |= {
                f"weight/{name}": value
                for name, value in zip(model.names, model.step.weights_T.tolist(), strict=True)
            }
        if model.step.penalty is not None:
            values["train/penalty"] = float(model.step.penalty)
        if (scaler := getattr(trainer.precision_plugin, "scaler", None)) is not None:
            values["loss_scale"] = float(scaler.get_scale())
        for group in trainer.optimizers[0].param_groups:
            values[f"lr/{group.get('name', 'all')}"] = float(group["lr"])
        values["epoch"] = trainer.current_epoch
        self._restart(trainer.global_step)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)


def event_files(folder: Path) -> list[Path]:
    """Returns the event files of a run, each of one session."""
    return [
        path
        for path in folder.glob("events.out.tfevents.*")
        if path.is_file() and not path.is_symlink()
    ]


def later_events(folder: Path, sizes: Any) -> dict[Path, int]:
    """Returns the event files that hold more than at a checkpoint, and how many bytes they had; none of 0 was there.

    Args:
        folder: The run folder.
        sizes: {name: bytes}, as the checkpoint has it; without it no file is known to hold more.
    """
    if not isinstance(sizes, dict) or not all(
        isinstance(size, int) and size > 0 for size in sizes.values()
    ):
        return {}
    found = {path: sizes.get(path.name, 0) for path in event_files(folder)}
    return {path: size for path, size in found.items() if size < path.stat().st_size}


def charts(tasks: Mapping[str, Task]) -> dict[str, list[Any]]:
    """The page of all tasks: first what compares them, then each one's losses and metrics."""
    page = {
        "validation loss of all tasks": [f"val/{name}/loss" for name in tasks],
        "weights of all tasks": [f"weight/{name}" for name in tasks],
        "score, and what counts of each task": [
            "val/score",
            *(f"val/{name}/{task.monitor}" for name, task in tasks.items()),
        ],
    }
    page |= {f"loss of {name}": [f"train/{name}/loss", f"val/{name}/loss"] for name in tasks}
    for name, task in tasks.items():
        # errors in a label's unit would flatten metrics between 0 and 1
        errors = [metric for metric in task.all_metric_names if task.prefers_less(metric)]
        others = [metric for metric in task.all_metric_names if metric not in errors]
        for title, metrics in (("metrics", others), ("errors", errors)):
            if metrics:
                page[f"{title} of {name}"] = [f"val/{name}/{metric}" for metric in metrics]
    # TensorBoard reads a tag as a regular expression that may end anywhere: 'age' would draw
    # 'age_group' too
    return {
        title: ["Multiline", [f"{re.escape(tag)}$" for tag in tags]] for title, tags in page.items()
    }
