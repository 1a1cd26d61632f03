"""Adam on T numbers, with its whole state in buffers."""

import torch
from torch import Tensor, nn


class Adam(nn.Module):
    """Adam (Kingma and Ba, ICLR 2015) for what a balancer learns by a gradient of its own: torch's optimizers keep no buffers.

    Each number counts the steps in which it took part: for a task without labels a step has not
    been, neither for its number nor for what Adam remembers of its gradients.

    Args:
        size: T.
        lr: Learning rate.
    """

    moments_2T: Tensor
    steps_T: Tensor

    def __init__(self, size: int, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.register_buffer("moments_2T", torch.zeros(2, size, dtype=torch.float64))
        self.register_buffer("steps_T", torch.zeros(size, dtype=torch.float64))

    def step(self, gradient_T: Tensor, present_T: Tensor) -> Tensor:
        """Returns what is to be subtracted (T,): 0 for numbers that take no part in the step."""
        self.steps_T += present_T
        first, second = self.moments_2T
        first.lerp_(gradient_T, (1 - 0.9) * present_T.to(first))
        second.lerp_(gradient_T.square(), (1 - 0.999) * present_T.to(second))
        steps_T = self.steps_T.clamp(min=1)
        change = (first / (1 - 0.9**steps_T)) / ((second / (1 - 0.999**steps_T)).sqrt() + 1e-8)
        return self.lr * change.where(present_T, 0)
