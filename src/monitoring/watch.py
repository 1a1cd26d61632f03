"""The standard callbacks of a training run."""

from dataclasses import dataclass
from pathlib import Path

import lightning as L

from src.monitoring.check_least import check_least
from src.monitoring.checkpoints import BestCheckpoint, LastCheckpoint
from src.monitoring.conflicts import GradientConflicts
from src.monitoring.dashboard import Dashboard
from src.monitoring.figures import Figures
from src.monitoring.guards import FiniteLossGuard, RanksAgreeGuard
from src.monitoring.hparams import HParams
from src.monitoring.interrupt import Interrupt
from src.monitoring.learning_rate import LearningRate
from src.monitoring.progress import Progress
from src.monitoring.progress_file import NAME, ProgressFile
from src.monitoring.selection import Selection
from src.monitoring.watcher import WatcherGroup
from src.tasks.score import ScoreSetting


@dataclass
class Watch:
    """How a run is watched.

    Args:
        checkpoint_every: Optimizer steps between two saves of last.ckpt; the end of an epoch saves
            it too, unless it was short.
        patience: Stop after this many validations that are no better than the best; None never
            stops early. Where no label defines the score, the validation loss says what is better.
        patience_by_task: Stop the training of a task after this many validations in which it was
            not better: its head is frozen, and its loss left out. It is tested with the whole
            network of its own best epoch; best.ckpt holds the weights of each such epoch. None
            trains all tasks to the end, and selects one epoch.
        score: What val/score and test/score are, by which the best epoch is selected: the name of
            the one task that counts, or {task: weight}, where a task that is not named does not
            count; None takes the mean of all tasks.
        geometry_every: Optimizer steps from one log of conflicts between the tasks' gradients to
            the next; 0 for none.
        figures_every: Validations from one set of figures in TensorBoard to the next; 0 for none.
        finite_every: Steps between two checks of the losses; a non-finite one ends the run.
        ranks_every: Steps between two checks that all ranks hold the same weights.
    """

    checkpoint_every: int = 500
    patience: int | None = None
    patience_by_task: int | None = None
    score: ScoreSetting = None
    figures_every: int = 10
    geometry_every: int = 0
    finite_every: int = 1
    ranks_every: int = 200

    def __post_init__(self) -> None:
        steps = ("checkpoint_every", "finite_every", "ranks_every")
        check_least(self, "watch", dict.fromkeys(steps, 1))
        patience = {"patience": 1, "patience_by_task": 1}
        check_least(self, "watch", patience, ", or null to never stop early")
        check_least(self, "watch", {"figures_every": 0, "geometry_every": 0})

    def callbacks(
        self, folder: Path | None, config: str, bar: bool, rate: LearningRate | None = None
    ) -> list[L.Callback]:
        """Builds the callbacks.

        Args:
            folder: The folder of checkpoints; None saves nothing, as in a debug run.
            config: The resolved configuration as YAML.
            bar: Whether there is a progress bar.
            rate: The learning rate of a resumed run.
        """
        dashboard = Dashboard(config)
        watchers: list[L.Callback] = [
            dashboard,
            HParams(config),
            FiniteLossGuard(self.finite_every),
            RanksAgreeGuard(self.ranks_every),
        ]
        if self.figures_every:
            watchers.append(Figures(self.figures_every))
        if self.geometry_every:
            watchers.append(GradientConflicts(self.geometry_every))
        interrupt = None if folder is None else Interrupt(folder / "last.ckpt")
        if interrupt is not None:
            watchers.append(interrupt)
        if folder is not None:
            watchers.append(ProgressFile(folder.parent / NAME))

        # the selection compares before the best checkpoint is saved
        selection = Selection(self.patience, self.patience_by_task)
        callbacks: list[L.Callback] = [WatcherGroup(*watchers), selection, rate or LearningRate()]
        if bar:
            callbacks.append(Progress(dashboard))
        if folder is not None and interrupt is not None:
            last = LastCheckpoint(folder, self.checkpoint_every, then=interrupt.at_epoch_end)
            callbacks += [BestCheckpoint(folder, selection), last]
        return callbacks
