"""Sums of errors over very many numbers, such as the pixels of all images."""

import torch
from torch import Tensor

from src.tasks.metric_classes import TaskMetric


class ErrorSums(TaskMetric):
    """Sums absolute, squared and relative errors in float64, whatever the number of values.

    In fp32 a sum over 10^8 pixels has few digits left.
    """

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(5, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, has_relative: Tensor) -> None:
        """Adds errors.

        Args:
            preds: (N,) predictions in float64.
            target: (N,) labels, all known.
            has_relative: (N,) Where the error relative to the label counts.
        """
        errors = (preds - target).abs()
        relative = (errors / target.abs())[has_relative]
        self.sums += torch.stack(
            [
                errors.sum(),
                errors.square().sum(),
                errors.new_tensor(errors.numel()),
                relative.sum(),
                relative.new_tensor(relative.numel()),
            ]
        )

    def compute(self) -> Tensor:
        """Returns mean absolute, root mean squared and mean relative error (3,)."""
        absolute, squared, count, relative, relative_count = self.sums
        return torch.stack([absolute / count, (squared / count).sqrt(), relative / relative_count])
