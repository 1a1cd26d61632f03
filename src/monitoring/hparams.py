"""TensorBoard's table of runs: a line a run, with its settings and its main results.

The line is a run of its own below the run folder, ``hparams``: TensorBoard makes a column of each
metric that such a run holds, and the curves would bury the results.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.metadata import (
    PLUGIN_DATA_VERSION,
    PLUGIN_NAME,
    SESSION_END_INFO_TAG,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from torch import Tensor
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from src.errors import attempt
from src.monitoring.dashboard import find_board
from src.monitoring.watcher import Watcher, warn
from src.tasks import Task

SECTIONS = ("data", "model", "seed_everything")
# settings of the Trainer that numbers depend on
OF_THE_TRAINER = (
    "max_epochs",
    "max_steps",
    "precision",
    "devices",
    "num_nodes",
    "strategy",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
    "overfit_batches",
)


class HParams(Watcher):
    """Opens the line when training starts, so that a run that fails has one, too.

    Args:
        config: The resolved configuration as YAML.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the settings; a resumed run's line starts anew."""
        if (folder := find_line(trainer)) is None:
            return
        for earlier in folder.glob("events.*"):
            earlier.unlink()
        config = yaml.safe_load(self.config) or {}
        given = config.get("trainer", {})
        trained = {key: given[key] for key in OF_THE_TRAINER if key in given}
        # the budget has set the number of epochs
        if trained.get("max_epochs") is None and (trainer.max_epochs or 0) > 0:
            trained["max_epochs"] = trainer.max_epochs
        settings = {**{key: config[key] for key in SECTIONS if key in config}, "trainer": trained}
        _, start, _ = hparams(flatten_settings(settings), {})
        add_events(folder, start)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Marks the run as failed."""
        if (folder := find_line(trainer)) is not None and folder.is_dir():
            # the same full disk, say, may fail this, too
            attempt(partial(end_line, folder, "STATUS_FAILURE"), Exception)


def log_results(
    trainer: L.Trainer,
    tasks: Mapping[str, Task],
    validation: Mapping[str, float],
    test: Mapping[str, float],
    step: int,
) -> None:
    """Completes the line with the score, and the ``monitor`` of each task.

    Args:
        trainer: The trainer, which has the logger.
        tasks: {name: task}.
        validation: Metrics of the best checkpoint, shown as val_best/...
        test: Its test metrics.
        step: The optimizer step of that checkpoint.
    """
    if (folder := find_line(trainer)) is None:
        return
    wanted = ["score", *(f"{name}/{task.monitor}" for name, task in tasks.items())]
    shown = {}
    for key in wanted:
        if f"val/{key}" in validation:
            shown[f"val_best/{key}"] = validation[f"val/{key}"]
    for key in wanted:
        if f"test/{key}" in test:
            shown[f"test/{key}"] = test[f"test/{key}"]
    # the run folder has the results, whether this works or not
    error = attempt(partial(end_line, folder, "STATUS_SUCCESS", shown, step), Exception)
    if error is not None:
        warn(HParams.__name__, error)


def find_line(trainer: L.Trainer) -> Path | None:
    """Returns the folder of this run's line, where this rank has a TensorBoard logger."""
    logger = find_board(trainer)
    return None if logger is None else Path(logger.log_dir) / "hparams"


def add_events(
    folder: Path,
    summary: Summary,
    scalars: Mapping[str, float] | None = None,
    step: int = 0,
    suffix: str = "",
) -> None:
    """Adds an event file to the line."""
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for tag, value in (scalars or {}).items():
            writer.add_scalar(tag, value, step)
        writer.file_writer.add_summary(summary)


def end_line(
    folder: Path, status: str, scalars: Mapping[str, float] | None = None, step: int = 0
) -> None:
    """Writes the end of a line, and removes an earlier end."""
    for earlier in folder.glob("events.*.end"):
        earlier.unlink()
    info = SessionEndInfo(status=Status.Value(status))
    data = HParamsPluginData(session_end_info=info, version=PLUGIN_DATA_VERSION)
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=data.SerializeToString())
    metadata = SummaryMetadata(plugin_data=plugin)
    summary = Summary(value=[Summary.Value(tag=SESSION_END_INFO_TAG, metadata=metadata)])
    add_events(folder, summary, scalars, step, suffix=".end")


def flatten_settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted key; values that the table cannot hold become text."""
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else key
        if key in ("init_args", "class_path"):
            path = prefix
        if key == "class_path":
            rows[path] = str(value).rpartition(".")[2]
        elif isinstance(value, dict):
            rows |= flatten_settings(value, path)
        elif isinstance(value, bool | int | float | str | Tensor):
            rows[path] = value
        elif value is not None:
            rows[path] = str(value)
    return rows
