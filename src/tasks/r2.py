"""The coefficient of determination of several outputs with missing labels."""

import torch
from torch import Tensor

from src.tasks.labels import is_labelled
from src.tasks.metric_classes import TaskMetric


class R2(TaskMetric):
    """Coefficient of determination per output, 1 - sum w (y - p)^2 / sum w (y - mean y)^2.

    The weights w of rows are 1 where none are given, and mean y is the mean with these weights.
    Missing elements are left out. It is given standardised values, whose sums of squares lose no
    digits, unlike sums of squared years or prices in fp32.

    Args:
        outputs: Number L of outputs.
    """

    sums: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(4, outputs, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        standard_preds: Tensor,
        standard_target: Tensor,
        standard_weights: Tensor | None = None,
    ) -> None:
        """Adds a batch of (B, L) predictions, targets and weights; NaN targets do not count."""
        mask = is_labelled(standard_target)
        y = standard_target.where(mask, 0).double()
        squares = (standard_preds.double() - y).square() * mask
        sums = torch.stack([mask.double(), y, y.square(), squares])
        if standard_weights is not None:
            sums = sums * standard_weights.double()
        self.sums += sums.sum(1)

    def compute(self) -> Tensor:
        """Returns R2 per output, NaN where fewer than two distinct targets were seen."""
        count, y, squares, errors = self.sums
        variation = squares - y.square() / count
        # a variation below rounding is the one of a single value
        return torch.where(variation > 1e-12 * squares, 1 - errors / variation, float("nan"))
