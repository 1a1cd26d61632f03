"""What monitoring may look at in a model."""

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor
from torchmetrics import MetricCollection

from src.tasks import Task

if TYPE_CHECKING:
    from pandas import DataFrame


class ObservedModel(Protocol):
    """The part of the model that watchers read.

    Attributes:
        names: Task names in the order of T.
        tasks: {name: task}.
        losses_T: Losses of the latest training step, over the global batch.
        weights_T: Weights of the losses, or of the tasks' gradients in what they share, in the
            latest step; None where there are none.
        penalty: What the step minimised besides the losses in the latest training step; None where
            there is nothing.
        train_sums_2T: Sums of losses and counts of labels, over all ranks, since it was last set to
            zero.
        weights: {task: fixed weight of its loss}.
        chosen_tasks: The tasks with the thresholds that the latest validation has chosen.
        scores: {task: score} of the latest evaluation; NaN where no label defines it.
    """

    names: tuple[str, ...]
    tasks: dict[str, Task]
    losses_T: Tensor | None
    weights_T: Tensor | None
    penalty: Tensor | None
    train_sums_2T: Tensor
    weights: dict[str, float]
    scores: dict[str, float]
    chosen_tasks: dict[str, Task]

    def metrics_of(self, name: str) -> MetricCollection:
        """A task's metrics of the latest evaluation."""

    def own_weights(self) -> "dict[str, list[tuple[str, int | None]]] | None":
        """The entries of the state that belong to one task alone, by task; None where tasks share any."""

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The optimizer's groups by name, for a learning rate."""

    def task_gramian(self, batch: Any) -> Tensor:
        """Inner products (T, T) of the task gradients over the global batch."""

    def figures(self) -> "dict[str, DataFrame]":
        """What can be drawn of how tasks share, {title: table}; integers are routes."""
