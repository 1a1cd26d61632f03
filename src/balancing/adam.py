"""Adam on T numbers, with its whole state in buffers."""

import torch
from torch import Tensor, nn


class Adam(nn.Module):
    """Adam (Kingma and Ba, ICLR 2015) for what a balancer learns by a gradient of its own: torch's optimizers keep no buffers.

    Args:
        size: T.
        lr: Learning rate.
    """

    moments_2T: Tensor
    steps: Tensor

    def __init__(self, size: int, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.register_buffer("moments_2T", torch.zeros(2, size, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

    def step(self, gradient_T: Tensor) -> Tensor:
        """Returns what is to be subtracted."""
        self.steps += 1
        first, second = self.moments_2T
        first.lerp_(gradient_T, 1 - 0.9)
        second.lerp_(gradient_T.square(), 1 - 0.999)
        return self.lr * (first / (1 - 0.9**self.steps)) / ((second / (1 - 0.999**self.steps)).sqrt() + 1e-8)
