"""Adam on T numbers, with its whole state in buffers."""

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam(nn.Module):
    """Adam (Kingma and Ba, ICLR 2015) for the T numbers that a balancer learns by itself.

    torch's optimizers keep their state outside of buffers, where a balancer's checkpoint would
    miss it. This one also counts the steps of each number by itself: a step in which a task has no
    label changes neither the number of that task nor its moments.

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
        """Returns the change (T,) to subtract; it is 0 for tasks that are absent from the step."""
        beta1, beta2 = BETAS
        self.steps_T += present_T
        first, second = self.moments_2T
        first.lerp_(gradient_T, (1 - beta1) * present_T.to(first))
        second.lerp_(gradient_T.square(), (1 - beta2) * present_T.to(second))

        # the running means start at 0, and these factors take that bias out
        steps_T = self.steps_T.clamp(min=1)
        mean = first / (1 - beta1**steps_T)
        square = second / (1 - beta2**steps_T)
        change = mean / (square.sqrt() + EPSILON)
        return self.lr * change.where(present_T, 0)
