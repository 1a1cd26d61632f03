"""TensorBoard's table of runs: one line a run, with the settings that its numbers follow from and what counts of its results.

The line is a run of its own below the run folder, ``hparams``: TensorBoard makes the columns of all
metrics that such a run holds, and those of the curves would bury the results.
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

from src.monitoring.dashboard import board
from src.monitoring.watcher import Watcher, attempt, warn
from src.tasks import Task

SECTIONS = ("data", "model", "seed_everything")
OF_THE_TRAINER = (
    *(
        "max_epochs",
        "max_steps",
        "precision",
        "devices",
        "num_nodes",
        "strategy",
        "accumulate_grad_batches",
        "gradient_clip_val",
    ),
    *("gradient_clip_algorithm", "limit_train_batches", "overfit_batches"),
)


class HParams(Watcher):
    """Opens the line when training starts, so that a run that fails has one too.

    Args:
        config: The resolved configuration as YAML.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the settings; a resumed run's line starts anew."""
        if (folder := line_of(trainer)) is None:
            return
        for earlier in folder.glob("events.*"):
            earlier.unlink()
        config = yaml.safe_load(self.config) or {}
        trained = {
            key: config["trainer"][key]
            for key in OF_THE_TRAINER
            if key in config.get("trainer", {})
        }
        if trained.get("max_epochs") is None and (trainer.max_epochs or 0) > 0:
            trained["max_epochs"] = trainer.max_epochs  # as the budget has set it
        settings = {**{key: config[key] for key in SECTIONS if key in config}, "trainer": trained}
        _, start, _ = hparams(flat(settings), {})
        write(folder, start)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Says that the run did not end as it should."""
        if (folder := line_of(trainer)) is not None and folder.is_dir():
            attempt(
                partial(end, folder, "STATUS_FAILURE")
            )  # what has failed the run may fail this, too


def log_results(
    trainer: L.Trainer,
    tasks: Mapping[str, Task],
    validation: Mapping[str, float],
    test: Mapping[str, float],
    step: int,
) -> None:
    """Completes the line: the score, and what counts of each task.

    Args:
        trainer: Has the logger.
        tasks: {name: task}.
        validation: Metrics of the best checkpoint, shown as val_best/...
        test: Its test metrics.
        step: When it was taken.
    """
    if (folder := line_of(trainer)) is None:
        return
    wanted = ["score", *(f"{name}/{task.monitor}" for name, task in tasks.items())]
    shown = {
        f"val_best/{key}": validation[f"val/{key}"] for key in wanted if f"val/{key}" in validation
    }
    shown |= {f"test/{key}": test[f"test/{key}"] for key in wanted if f"test/{key}" in test}
    error = attempt(partial(end, folder, "STATUS_SUCCESS", shown, step))
    if error is not None:  # the results are elsewhere, too
        warn(HParams.__name__, error)


def line_of(trainer: L.Trainer) -> Path | None:
    """The folder of this run's line, where this rank has a TensorBoard logger."""
    logger = board(trainer)
    return None if logger is None else Path(logger.log_dir) / "hparams"


def write(
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
        writer._get_file_writer().add_summary(summary)


def end(
    folder: Path, status: str, scalars: Mapping[str, float] | None = None, step: int = 0
) -> None:
    """Writes the end of a line, in the place of an earlier one."""
    for earlier in folder.glob("events.*.end"):
        earlier.unlink()
    info = SessionEndInfo(status=Status.Value(status))
    content = HParamsPluginData(
        session_end_info=info, version=PLUGIN_DATA_VERSION
    ).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content)
    summary = Summary(
        value=[
            Summary.Value(tag=SESSION_END_INFO_TAG, metadata=SummaryMetadata(plugin_data=plugin))
        ]
    )
    write(folder, summary, scalars, step, suffix=".end")


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; what TensorBoard's table cannot hold is written out as text."""
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        path = (
            prefix if key in ("init_args", "class_path") else f"{prefix}.{key}" if prefix else key
        )
        if key == "class_path":
            rows[path] = str(value).rpartition(".")[2]
        elif isinstance(value, dict):
            rows |= flat(value, path)
        elif isinstance(value, bool | int | float | str | Tensor):
            rows[path] = value
        elif value is not None:
            rows[path] = str(value)
    return rows
