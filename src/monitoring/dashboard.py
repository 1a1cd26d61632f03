"""TensorBoard: training curves, one page that lays all tasks side by side, the config, one line of hparams per run."""

import time
from collections.abc import Mapping
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from src.monitoring.watched import Watched


def board(trainer: L.Trainer) -> TensorBoardLogger | None:
    """The run's TensorBoard logger, where this rank has one."""
    logger = trainer.logger
    return logger if trainer.is_global_zero and isinstance(logger, TensorBoardLogger) else None


class Dashboard(L.Callback):
    """Logs train/loss/<task>, lr/<group> and throughput every ``log_every_n_steps`` steps and at the end of each epoch.

    The model adds up its losses on the device; they are read here, rarely. Lightning's ``self.log`` on each step would cost more
    than the step itself from a few tasks on.

    Args:
        config: The resolved configuration as YAML, shown on the text page.
    """

    def __init__(self, config: str = "") -> None:
        self.config = config
        self.clock, self.samples = time.monotonic(), 0
        self.latest: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the page layout and the config."""
        self.clock, self.samples = time.monotonic(), 0
        logger = board(trainer)
        if logger is None:
            return
        model = cast(Watched, pl_module)
        charts: dict[str, list[Any]] = {
            f"loss of {name}": ["Multiline", [f"train/loss/{name}", f"val/loss/{name}"]] for name in model.names
        }
        for name, task in model.tasks.items():
            charts[f"metrics of {name}"] = ["Multiline", [f"val/{name}/{metric}" for metric in task.metric_names]]
        logger.experiment.add_custom_scalars({"tasks side by side": charts})
        logger.experiment.add_text("config", "\n".join("    " + line for line in self.config.splitlines()))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs if it is time; Lightning's rule for steps with accumulation holds here too."""
        self.samples += len(batch)
        step = trainer.global_step
        if step and step % trainer.log_every_n_steps == 0 and self._stepped(trainer):
            self.flush(trainer, cast(Watched, pl_module))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs what the epoch still holds."""
        self.flush(trainer, cast(Watched, pl_module))

    @staticmethod
    def _stepped(trainer: L.Trainer) -> bool:
        return not trainer.fit_loop.epoch_loop._should_accumulate()

    def flush(self, trainer: L.Trainer, model: Watched) -> None:
        """Writes the mean losses since the last time, and starts anew."""
        sums, counts = model.train_sums_2T.tolist()
        model.train_sums_2T.zero_()
        if not any(counts):
            return
        now = time.monotonic()
        values = {f"train/loss/{n}": s / c for n, s, c in zip(model.names, sums, counts, strict=True) if c}
        self.latest = dict(values)
        values["throughput/samples_per_second"] = self.samples * trainer.world_size / max(now - self.clock, 1e-9)
        for group in trainer.optimizers[0].param_groups:
            values[f"lr/{group.get('name', 'all')}"] = float(group["lr"])
        self.clock, self.samples = now, 0
        if trainer.logger is not None:
            trainer.logger.log_metrics(values, step=trainer.global_step)


def log_hparams(trainer: L.Trainer, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Writes the run's settings with its final metrics: one line in TensorBoard's table of runs."""
    logger = board(trainer)
    if logger is not None:
        logger.log_hyperparams(flat(config), {f"hp/{k}": v for k, v in metrics.items()}, step=trainer.global_step)
        logger.save()


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; what TensorBoard's table cannot hold is written out as text."""
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        path = prefix if key in ("init_args", "class_path") else f"{prefix}.{key}" if prefix else key
        if key == "class_path":
            rows[path] = str(value).rpartition(".")[2]
        elif isinstance(value, dict):
            rows |= flat(value, path)
        elif isinstance(value, bool | int | float | str | torch.Tensor):
            rows[path] = value
        elif value is not None:
            rows[path] = str(value)
    return rows
