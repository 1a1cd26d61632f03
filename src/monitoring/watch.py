"""The standard set of watchers of a training run."""

import sys
from dataclasses import dataclass

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping

from src.monitoring.checkpoints import LastCheckpoint, best_checkpoint
from src.monitoring.dashboard import Dashboard
from src.monitoring.figures import Figures
from src.monitoring.guards import FiniteLossGuard, RanksAgreeGuard
from src.monitoring.interrupt import Interrupt
from src.monitoring.progress import Progress
from src.run import Run


@dataclass
class Watch:
    """How a run is watched.

    Args:
        checkpoint_every: Optimizer steps between two saves of last.ckpt; the end of an epoch saves it too.
        patience: Stop after this many validations without a better score; None never stops early.
        figures_every: Epochs between two sets of pictures in TensorBoard; 0 for none.
        finite_every: Steps between two looks at the losses; a non-finite one ends the run.
        ranks_every: Steps between two checks that all ranks hold the same weights.
    """

    checkpoint_every: int = 500
    patience: int | None = None
    figures_every: int = 10
    finite_every: int = 1
    ranks_every: int = 200

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "finite_every", "ranks_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"watch.{name} is {getattr(self, name)}; it must be at least 1")

    def callbacks(self, run: Run | None, config: str, several_devices: bool) -> list[L.Callback]:
        """Builds the callbacks; without a run folder (a debug run) nothing is saved."""
        dashboard = Dashboard(config)
        callbacks: list[L.Callback] = [dashboard, FiniteLossGuard(self.finite_every)]
        if several_devices:
            callbacks.append(RanksAgreeGuard(self.ranks_every))
        if self.figures_every:
            callbacks.append(Figures(self.figures_every))
        if self.patience is not None:
            callbacks.append(EarlyStopping("val/score", mode="max", patience=self.patience))
        if sys.stderr.isatty():
            callbacks.append(Progress(dashboard))
        if run is not None:
            folder = run.best.parent
            callbacks += [Interrupt(run.last), best_checkpoint(folder), LastCheckpoint(folder, self.checkpoint_every)]
        return callbacks
