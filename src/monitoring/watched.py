"""What monitoring may look at in a model."""

from typing import Protocol

from torch import Tensor

from src.balancing import TaskLosses
from src.tasks import Task


class Watched(Protocol):
    """The part of the model that watchers read.

    Attributes:
        names: Task names in the order of T.
        tasks: {name: task}.
        losses: Losses of the latest training step.
        train_sums_2T: Sums of losses and counts of labels, over all ranks, since it was last set to zero.
    """

    names: tuple[str, ...]
    tasks: dict[str, Task]
    losses: TaskLosses | None
    train_sums_2T: Tensor
