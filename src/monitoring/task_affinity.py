"""The affinities of tasks along a training: which tasks help one another."""

from typing import TYPE_CHECKING, Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor

from src.monitoring.check_least import check_least
from src.monitoring.dashboard import find_board
from src.monitoring.drawing import draw_matrix
from src.monitoring.observed_model import ObservedModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TaskAffinity(L.Callback):
    """Measures how a step on one task's loss alone changes the losses of all tasks.

    Entry (i, j) of an affinity is the share of task j's loss that a step on task i alone, in the
    shared parameters, takes away: above 0 where i helps j. It is taken by a step that is tried and
    taken back (lookahead), and to first order, see :mod:`src.models.affinities`. Training goes on
    as it would without. At the end TensorBoard shows the means over all measurements, under
    ``affinity``.

    Args:
        every_n_steps: Optimizer steps from one measurement to the next.

    Attributes:
        steps: The steps at which was measured.
        lookahead: The affinities (T, T) of each of these steps, in the order of the model's tasks;
            NaN where a task had no label.
        first_order: Their first-order terms.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps
        check_least(self, "trainer.callbacks.TaskAffinity", {"every_n_steps": 1})
        self.steps: list[int] = []
        self.lookahead: list[Tensor] = []
        self.first_order: list[Tensor] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measures if it is time; all ranks compute together, and have the same numbers."""
        step = trainer.global_step
        # of several micro-batches of a step, the first is measured
        if step % self.every_n_steps or step in self.steps[-1:]:
            return
        model = cast(ObservedModel, pl_module)
        affinities = model.step.task_affinities(batch)

        # from the order of T, in which alike tasks stand together
        order = torch.tensor([model.names.index(name) for name in model.tasks])
        lookahead_TT, first_order_TT = (found.cpu()[order][:, order] for found in affinities)
        self.steps.append(step)
        self.lookahead.append(lookahead_TT)
        self.first_order.append(first_order_TT)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the means of all measurements."""
        board = find_board(trainer)
        if board is None or not self.steps:
            return
        names = list(cast(ObservedModel, pl_module).tasks)
        for kind, measured in (("lookahead", self.lookahead), ("first_order", self.first_order)):
            figure = draw_affinities(names, average(torch.stack(measured).numpy()))
            board.experiment.add_figure(
                f"affinity/{kind}", figure, global_step=trainer.global_step, close=False
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns all measurements so far, and the interval between them."""
        return {
            "every_n_steps": self.every_n_steps,
            "steps": list(self.steps),
            "lookahead": list(self.lookahead),
            "first_order": list(self.first_order),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the measurements of a run that goes on, and its interval."""
        self.every_n_steps = state_dict["every_n_steps"]
        self.steps = list(state_dict["steps"])
        self.lookahead = list(state_dict["lookahead"])
        self.first_order = list(state_dict["first_order"])


def average(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the first dimension of the values that are defined; NaN of none."""
    known = np.isfinite(values)
    counts = known.sum(0)
    sums = np.where(known, values, 0.0).sum(0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def find_unit(affinities: np.ndarray) -> int:
    """Returns the power of ten in which the largest affinity between two tasks is from 1 to 10."""
    between = affinities[~np.eye(len(affinities), dtype=bool)]
    largest = np.abs(between[np.isfinite(between)]).max(initial=0.0)
    return int(np.floor(np.log10(largest))) if largest > 0 else 0


def draw_affinities(tasks: list[str], affinities: np.ndarray) -> "Figure":
    """Draws affinities (T, T) as colours and numbers; the row helps the column where it is blue.

    Affinities of tasks for themselves, which are larger, are left blank.
    """
    unit = find_unit(affinities)
    between = affinities / 10.0**unit
    np.fill_diagonal(between, np.nan)
    title = "row helps column, " + (f"in 1e{unit}" if unit else "as a share of its loss")
    largest = float(np.nanmax(np.abs(between), initial=0.0))
    return draw_matrix(title, tasks, tasks, between, top=largest or 1.0)
