"""The coefficient of determination of several outputs with missing labels."""

import torch
from torch import Tensor

from src.tasks.labels import is_labelled
from src.tasks.metric_classes import TaskMetric


class R2(TaskMetric):
    """Coefficient of determination per output, 1 - sum (y - p)^2 / sum (y - mean y)^2.

    Missing elements are left out. It is given standardised values, whose sums of squares lose no
    digits, unlike sums of squared years or prices in fp32.

    Args:
        outputs: Number L of outputs.
    """

    sums: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(4, outputs, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, standard_preds: Tensor, standard_target: Tensor) -> None:
        """Adds a batch of (B, L) predictions and targets; NaN targets do not count."""
        mask = is_labelled(standard_target)
        y = standard_target.where(mask, 0).double()
        squares = (standard_preds.double() - y).square() * mask
        self.sums += torch.stack([mask.double(), y, y.square(), squares]).sum(1)

    def compute(self) -> Tensor:
        """Returns R2 per output, NaN where fewer than two distinct targets were seen."""
        count, y, squares, errors = self.sums
        variation = squares - y.square() / count
        # a variation below rounding is the one of a single value
        return torch.where(variation > 1e-12 * squares, 1 - errors / variation, float("nan"))
