"""Sums of statistics of labels, which metrics are ratios of."""

import torch
from torch import Tensor

from src.tasks.metric_classes import TaskMetric


class Sums(TaskMetric):
    """Sums statistics of labels in fp64, each times the weight of its row.

    Sums over batches and processes are exact however rows are dealt, and one state serves several
    metrics.

    Args:
        size: Number n of statistics.
    """

    sums: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, statistics: Tensor, row_weights: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            statistics: (N, n), zeros where the label is missing.
            row_weights: (N,); None weighs all alike.
        """
        statistics = statistics.double()
        if row_weights is not None:
            statistics = statistics * row_weights.double()[:, None]
        self.sums += statistics.sum(0)

    def compute(self) -> Tensor:
        """Returns the sums over all batches and ranks, (n,)."""
        return self.sums


def spread_weights(weights: Tensor, labels: Tensor) -> Tensor:
    """Repeats the weights of rows (B,) for each of a row's labels (B, ...), flattened to (N,)."""
    shape = (-1, *[1] * (labels.ndim - 1))
    return weights.view(shape).expand(labels.shape).flatten()
