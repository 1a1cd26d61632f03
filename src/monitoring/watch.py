"""The standard set of watchers of a training run."""

from dataclasses import dataclass
from pathlib import Path

import lightning as L

from src.errors import UserError
from src.monitoring.callback_group import CallbackGroup
from src.monitoring.checkpoints import BestCheckpoint, LastCheckpoint
from src.monitoring.conflicts import GradientConflicts
from src.monitoring.dashboard import Dashboard
from src.monitoring.figures import Figures
from src.monitoring.guards import FiniteLossGuard, RanksAgreeGuard
from src.monitoring.hparams import HParams
from src.monitoring.interrupt import Interrupt
from src.monitoring.learning_rate import LearningRate
from src.monitoring.progress import Progress
from src.monitoring.selection import Selection


@dataclass
class Watch:
    """How a run is watched.

    Args:
        checkpoint_every: Optimizer steps between two saves of last.ckpt; the end of an epoch saves
            it too, unless it was short.
        patience: Stop after this many validations that are no better than the best; None never
            stops early. Where no label defines the score, the validation loss says what is better.
        geometry_every: Optimizer steps between two looks at how the tasks' gradients lie to one
            another; 0 never looks.
        figures_every: Validations between two sets of pictures in TensorBoard; 0 for none.
        finite_every: Steps between two looks at the losses; a non-finite one ends the run.
        ranks_every: Steps between two checks that all ranks hold the same weights.
    """

    checkpoint_every: int = 500
    patience: int | None = None
    figures_every: int = 10
    geometry_every: int = 0
    finite_every: int = 1
    ranks_every: int = 200

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "finite_every", "ranks_every"):
            if getattr(self, name) < 1:
                raise UserError(f"watch.{name} is {getattr(self, name)}; it must be at least 1")
        if self.patience is not None and self.patience < 1:
            raise UserError(
                f"watch.patience is {self.patience}; it must be at least 1, or null to never stop early"
            )
        for name in ("figures_every", "geometry_every"):
            if getattr(self, name) < 0:
                raise UserError(f"watch.{name} is {getattr(self, name)}; it must be at least 0")

    def callbacks(
        self, folder: Path | None, config: str, bar: bool, rate: LearningRate | None = None
    ) -> list[L.Callback]:
        """Builds the callbacks; without a folder for checkpoints (a debug run) nothing is saved; ``bar`` adds a progress bar."""
        dashboard = Dashboard(config)
        watchers: list[L.Callback] = [
            *(dashboard, HParams(config)),
            *(FiniteLossGuard(self.finite_every), RanksAgreeGuard(self.ranks_every)),
        ]
        if self.figures_every:
            watchers.append(Figures(self.figures_every))
        if self.geometry_every:
            watchers.append(GradientConflicts(self.geometry_every))
        interrupt = None if folder is None else Interrupt(folder / "last.ckpt")
        if interrupt is not None:
            watchers.append(interrupt)
        selection = Selection(self.patience)
        callbacks: list[L.Callback] = [CallbackGroup(*watchers), selection, rate or LearningRate()]
        if bar:
            callbacks.append(Progress(dashboard))
        if folder is not None and interrupt is not None:
            last = LastCheckpoint(folder, self.checkpoint_every, then=interrupt.at_epoch_end)
            callbacks += [BestCheckpoint(folder, selection), last]
        return callbacks
