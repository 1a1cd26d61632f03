"""The contract of every balancer: how T task losses become the one scalar that a step minimises."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class TaskLosses:
    """The losses of one step, as every rank sees them.

    Attributes:
        local_T: (T,) This rank's share, in the graph: sum of the valid element losses x world size / global count of valid
            elements. Its mean over the ranks, which is what DDP and FSDP take of gradients, is the loss over the global batch.
        global_T: (T,) The losses over the global batch, detached, the same on every rank.
        present_T: (T,) bool, whether the task has a label anywhere in the global batch; an absent task has loss 0.
    """

    local_T: Tensor
    global_T: Tensor
    present_T: Tensor


class Balancer(nn.Module, ABC):
    """Turns task losses into one scalar. Its whole state is in parameters and buffers of fixed shape, so that a checkpoint has it.

    A balancer must treat all ranks alike: what it decides may depend on ``global_T``, ``present_T``, its own state and randomness
    drawn from (seed, step), never on ``local_T``'s value.

    Args:
        weights: {task: fixed weight}, in the order of T.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.tasks = tuple(weights)

    @abstractmethod
    def forward(self, losses: TaskLosses) -> Tensor:
        """Returns the scalar whose gradient the step follows."""


class LossBalancer(Balancer):
    """The family that weighs losses: the step minimises sum_t w_t L_t, with w from the losses' values."""

    @abstractmethod
    def weigh(self, losses: TaskLosses) -> Tensor:
        """Returns the weights (T,)."""

    def forward(self, losses: TaskLosses) -> Tensor:
        """Returns sum_t w_t L_t."""
        return torch.dot(self.weigh(losses).to(losses.local_T), losses.local_T)
