"""The default learning-rate schedule."""

from math import cos, pi
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.errors import UserError


class WarmupCosine(LRScheduler):
    """Warms up linearly, then follows half a cosine down to ``floor``, moved at each step.

    See Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    With a warm-up of w steps of N: lr(s) = lr (s + 1) / w for s < w, then lr (floor + (1 - floor)
    (1 + cos(pi (s - w) / (N - w))) / 2).

    Args:
        optimizer: The optimizer whose rates it sets.
        warmup: Length of the warm-up as a share of all steps.
        floor: Last learning rate as a share of the peak.
        total_steps: Number of optimizer steps; the model fills in the run's when None.
    """

    interval = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.05,
        floor: float = 0.0,
        total_steps: int | None = None,
    ) -> None:
        if not 0 <= warmup <= 1 or not 0 <= floor <= 1:
            raise UserError(f"WarmupCosine: warmup {warmup} and floor {floor} must be in [0, 1]")
        self.warmup = warmup
        self.floor = floor
        self.total_steps = total_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """Returns the share of the peak rate at a step, counted from 0.

        It is 1 as long as the number of steps is unknown.
        """
        if self.total_steps is None:
            return 1.0
        warm = round(self.warmup * self.total_steps)
        if step < warm:
            return (step + 1) / warm
        progress = min(1.0, (step - warm) / max(1, self.total_steps - warm))
        return self.floor + (1 - self.floor) * (1 + cos(pi * progress)) / 2

    def set_total(self, total_steps: int) -> None:
        """Sets the number of steps, unless it is fixed already, and the first step's rates."""
        if self.total_steps is None:
            self.total_steps = total_steps
            self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state without the number of steps.

        A run that is resumed with more epochs follows the longer curve.
        """
        return {key: value for key, value in super().state_dict().items() if key != "total_steps"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a step, at the rate of the curve as long as it is now."""
        super().load_state_dict(state_dict)
        self._set_rates()

    def _set_rates(self) -> None:
        self._last_lr = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr

    def get_lr(self) -> list[float | Tensor]:
        """Returns the learning rate of each parameter group."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]
