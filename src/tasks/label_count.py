"""The counts of known labels that metrics of a task depend on."""

import torch
from torch import Tensor

from src.tasks.metric_classes import TaskMetric


class LabelCount(TaskMetric):
    """Counts known labels per class and output, so that a metric without labels is NaN, not 0."""

    counts: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Adds ``counts``, of the shape given at the start."""
        self.counts += counts

    def compute(self) -> Tensor:
        """Returns the counts over all batches and ranks."""
        return self.counts
