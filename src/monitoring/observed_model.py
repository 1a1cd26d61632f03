"""The part of a model that monitoring reads."""

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor
from torchmetrics import MetricCollection

from src.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Collection

    from pandas import DataFrame


class ObservedStep(Protocol):
    """The part of a training step that watchers read.

    Attributes:
        losses_T: (T,) The losses of the latest step over the global batch; None before the first.
        weights_T: (T,) The weights of the losses, or of the tasks' gradients in what they share, in
            the latest step; None where there are none.
        penalty: The penalty of the sharing architecture in the latest step; None where it has none.
        sums_2T: (2, T) Sums of losses and counts of labels, over all ranks, since it was last set
            to zero.
    """

    losses_T: Tensor | None
    weights_T: Tensor | None
    penalty: Tensor | None
    sums_2T: Tensor

    def task_affinities(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Returns the affinities (T, T) of the tasks by lookahead, and to first order."""


class ObservedModel(Protocol):
    """A model as watchers know it.

    Attributes:
        names: Task names in the order of T.
        tasks: {name: task}.
        step: Takes the training steps.
        weights: {task: fixed weight of its loss}.
        score_weights: {task: its weight in val/score}.
        chosen_tasks: The tasks with the thresholds that the latest validation has chosen.
        scores: {task: score} of the latest evaluation; NaN where no label defines it.
    """

    names: tuple[str, ...]
    tasks: dict[str, Task]
    step: ObservedStep
    weights: dict[str, float]
    score_weights: dict[str, float]
    scores: dict[str, float]
    chosen_tasks: dict[str, Task]

    def metrics_of(self, name: str) -> MetricCollection:
        """Returns a task's metrics of the latest evaluation."""

    def own_weights(self) -> "dict[str, list[tuple[str, int | None]]] | None":
        """Returns the entries of the state of each task alone; None where tasks share any."""

    def stop_tasks(self, names: "Collection[str]") -> None:
        """Trains these tasks no longer: their heads stay, and their losses do not count."""

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Returns the optimizer's groups with their names, for a learning rate."""

    def measure_groups(self) -> dict[str, float]:
        """Returns {tag: value} of groups of people in training since the last call."""

    def task_gramian(self, batch: Any) -> Tensor:
        """Returns inner products (T, T) of the task gradients over the global batch."""

    def figures(self) -> "dict[str, DataFrame]":
        """Returns {title: table} that show how tasks share; a table of integers has routes."""
