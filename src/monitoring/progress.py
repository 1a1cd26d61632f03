"""The progress bar: the score and the tasks' losses on a terminal, nothing elsewhere."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from src.monitoring.dashboard import Dashboard
from src.monitoring.watcher import guard_hooks


class Progress(RichProgressBar):
    """Lightning's rich bar, on standard error, with score and losses; the run goes on if it fails.

    Args:
        dashboard: Has the latest training losses.
        most_tasks: Up to this number of tasks each one has its loss, beyond it they have a mean.
    """

    def __init__(self, dashboard: Dashboard, most_tasks: int = 6) -> None:
        super().__init__(refresh_rate=10, console_kwargs={"stderr": True})
        self.dashboard = dashboard
        self.most_tasks = most_tasks
        guard_hooks(self)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Returns the numbers behind the bar."""
        losses = {}
        for tag, value in self.dashboard.latest.items():
            losses[tag.removeprefix("train/").removesuffix("/loss")] = value
        if len(losses) > self.most_tasks:
            losses = {"mean loss": sum(losses.values()) / len(losses)}
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        score = trainer.callback_metrics.get("val/score")
        return shown if score is None else {"score": f"{float(score):.4f}", **shown}
