"""TensorBoard: training curves, a page with all tasks side by side, the config as text."""

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
from src.errors import attempt
from src.monitoring.observed_model import ObservedModel
from src.monitoring.watcher import Watcher, warn
from src.tasks import Task


class Board(TensorBoardLogger):
    """The event files of one run, in its folder.

    When they cannot be written any more, the run goes on without them.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False, flush_secs=10)
        self.left_out = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes curves; the epoch is none, and the table of runs has the test, a single point."""
        curves = dict(metrics)
        for tag in metrics:
            if tag == "epoch" or tag.startswith("test/"):
                del curves[tag]
        self._try(partial(super().log_metrics, curves, step))

    @rank_zero_only
    def flush(self) -> None:
        """Puts all events on disk."""
        self._try(self.experiment.flush)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Puts all events on disk and closes the file."""
        self._try(partial(super().finalize, status))

    def _try(self, write: Callable[[], object]) -> None:
        error = None if self.left_out else attempt(write, Exception)
        if error is not None:
            self.left_out = True
            warn("TensorBoard", error)

    @rank_zero_only
    def save(self) -> None:
        """Writes no hparams.yaml, as Lightning would: the run folder has its config.yaml."""


def find_board(trainer: L.Trainer) -> TensorBoardLogger | None:
    """Returns the run's TensorBoard logger, where this rank has one that can be written."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    found = next((logger for logger in loggers if isinstance(logger, TensorBoardLogger)), None)
    return None if getattr(found, "left_out", False) else found


class Dashboard(Watcher):
    """Logs train/<task>/loss, train/penalty, weight/<task>, lr/<group> and throughput.

    It does so every ``log_every_n_steps`` steps and at the end of each epoch; penalty and weights
    are of the latest step.

    A loss is the mean over all labels since the last point. The model sums losses up on the device,
    and they are read here, rarely: with more than a few tasks, Lightning's ``self.log`` in each
    step would cost more than the step itself.

    Args:
        config: The resolved configuration as YAML, shown on the text page.
    """

    def __init__(self, config: str = "") -> None:
        self.config = config
        self.latest: dict[str, float] = {}
        # event files that grew after the checkpoint, with their size then
        self._lost: dict[Path, int] = {}
        self._restart(0)

    def _restart(self, step: int) -> None:
        self.step = step
        self.samples = 0
        self.clock = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the page layout and the config."""
        self._restart(trainer.global_step)
        logger = find_board(trainer)
        if logger is None:
            return
        self._go_back()
        writer = logger.experiment
        # an open TensorBoard has read the events that were taken back: it must forget these steps
        step = trainer.global_step + 1 if trainer.global_step else 0
        restart = Event(step=step, session_log=SessionLog(status=SessionLog.START))
        writer.file_writer.add_event(restart)
        page = lay_out_charts(cast(ObservedModel, pl_module).tasks)
        writer.add_custom_scalars({"tasks side by side": page})
        # four blanks make it code in Markdown
        text = "\n".join(f"    {line}" for line in self.config.splitlines())
        writer.add_text("config", text, trainer.global_step)

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
        """Logs the steps until now, before the clock stops."""
        self.flush(trainer, cast(ObservedModel, pl_module))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock again: throughput is that of training."""
        self.clock = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the last steps of the epoch."""
        self.flush(trainer, cast(ObservedModel, pl_module))

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Puts events before the checkpoint on disk, so that a run resumed from it has no gap."""
        self.flush(trainer, cast(ObservedModel, pl_module))
        if isinstance(logger := find_board(trainer), Board):
            logger.flush()
            files = find_event_files(Path(logger.log_dir))
            checkpoint["events"] = {path.name: path.stat().st_size for path in files}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Finds the events that were written after the checkpoint from which training goes on."""
        logger = find_board(trainer)
        if logger is not None and trainer.state.fn == TrainerFn.FITTING:
            self._lost = find_later_events(Path(logger.log_dir), checkpoint.get("events"))

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Removes the events of an earlier test, where nothing was left to train."""
        self._go_back()

    def _go_back(self) -> None:
        """Removes events of steps that are about to be taken again."""
        for path, size in self._lost.items():
            if size:
                os.truncate(path, size)
            else:
                path.unlink()
        self._lost = {}

    def flush(self, trainer: L.Trainer, model: ObservedModel) -> None:
        """Writes the mean losses since the last call, and starts anew."""
        sums, counts = model.step.sums_2T.tolist()
        if not any(counts):
            return
        model.step.sums_2T.zero_()
        seconds = time.monotonic() - self.clock
        values = {}
        for name, loss, count in zip(model.names, sums, counts, strict=True):
            if count:
                values[f"train/{name}/loss"] = loss / count
        self.latest = dict(values)
        values["throughput/samples_per_second"] = self.samples * replica()[1] / max(seconds, 1e-9)
        if model.step.weights_T is not None:
            for name, weight in zip(model.names, model.step.weights_T.tolist(), strict=True):
                values[f"weight/{name}"] = weight
        if model.step.penalty is not None:
            values["train/penalty"] = float(model.step.penalty)
        values |= model.measure_groups()
        if (scaler := getattr(trainer.precision_plugin, "scaler", None)) is not None:
            values["loss_scale"] = float(scaler.get_scale())
        groups = trainer.optimizers[0].param_groups
        for group in groups:
            values[f"lr/{group.get('name', 'all')}"] = float(group["lr"])
        # Prodigy and D-Adaptation multiply all rates by an estimate of their own
        if "d" in groups[0]:
            values["lr_estimate"] = float(groups[0]["d"])
        values["epoch"] = trainer.current_epoch
        self._restart(trainer.global_step)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)


def find_event_files(folder: Path) -> list[Path]:
    """Returns the event files of a run, each of one session."""
    found = folder.glob("events.out.tfevents.*")
    return [path for path in found if path.is_file() and not path.is_symlink()]


def find_later_events(folder: Path, sizes: object) -> dict[Path, int]:
    """Returns the event files that grew after a checkpoint, with the bytes that they had then.

    A file that is newer than the checkpoint had 0 bytes.

    Args:
        folder: The run folder.
        sizes: {name: bytes}, as the checkpoint has it; without it no file is known to hold more.
    """
    if not isinstance(sizes, dict):
        return {}
    # a stranger's checkpoint must not empty files
    if not all(isinstance(size, int) and size > 0 for size in sizes.values()):
        return {}
    found = {path: sizes.get(path.name, 0) for path in find_event_files(folder)}
    return {path: size for path, size in found.items() if size < path.stat().st_size}


def lay_out_charts(tasks: Mapping[str, Task]) -> dict[str, list[Any]]:
    """Returns the page of all tasks: charts that compare them, then each task's own."""
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
    exact = {title: [f"{re.escape(tag)}$" for tag in tags] for title, tags in page.items()}
    return {title: ["Multiline", tags] for title, tags in exact.items()}
