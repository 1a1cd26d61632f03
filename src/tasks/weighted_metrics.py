"""Metrics of classes and of errors in which each row can have a weight."""

from typing import Literal

import torch
from torch import Tensor

from src.tasks.labels import MISSING
from src.tasks.metric_classes import TaskMetric


def expand_weights(weights: Tensor, targets: Tensor) -> Tensor:
    """Returns the weight of its row for each element of targets (B, ...)."""
    return weights.view(-1, *[1] * (targets.ndim - 1)).expand_as(targets)


class ClassMetric(TaskMetric):
    """A metric of decisions among C classes, from sums of weights per class.

    With h_c the weight of the rows of class c that are decided right, n_c that of all its rows and
    m_c that of the rows that are decided to be of it:

    - ``accuracy``: sum_c h_c / sum_c n_c;
    - ``recall``, per class: h_c / n_c, NaN where a class has no row;
    - ``f1``, per class: 2 h_c / (n_c + m_c), NaN where a class has no row and no decision.

    Args:
        classes: Number C of classes.
        metric: The metric.
    """

    sums: Tensor

    def __init__(self, classes: int, metric: Literal["accuracy", "recall", "f1"]) -> None:
        super().__init__()
        self.classes = classes
        self.metric = metric
        self.add_state("sums", torch.zeros(3, classes, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        """Adds a batch of decisions and labels.

        Args:
            preds: (N,) positions of the classes decided for.
            target: (N,) positions of classes, ``MISSING`` where a label is missing.
            weights: (N,) weights of the rows; None weighs all alike.
        """
        known = target != MISSING
        right = known & (preds == target)
        rows = (target[right], target[known], preds[known])
        if weights is None:
            counts = [torch.bincount(row, minlength=self.classes) for row in rows]
            self.sums += torch.stack(counts)
            return
        of_rows = (weights[right], weights[known], weights[known])
        for place, row, own in zip(self.sums, rows, of_rows, strict=True):
            place.index_add_(0, row, own.double())

    def compute(self) -> Tensor:
        """Returns the metric over all batches and ranks, in fp32: a scalar, or (C,)."""
        hits, labels, decisions = self.sums
        if self.metric == "accuracy":
            return (hits.sum() / labels.sum()).float()
        if self.metric == "recall":
            return (hits / labels).float()
        return (2 * hits / (labels + decisions)).float()


class MeanError(TaskMetric):
    """Mean absolute error, or the root of the mean squared error, in float64.

    Args:
        power: 1 or 2.
    """

    sums: Tensor

    def __init__(self, power: Literal[1, 2]) -> None:
        super().__init__()
        self.power = power
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        """Adds predictions (N,) and labels (N,) that are known; None weighs all rows alike."""
        errors = (preds - target).double().abs() ** self.power
        own = torch.ones_like(errors) if weights is None else weights.double()
        self.sums += torch.stack([(own * errors).sum(), own.sum()])

    def compute(self) -> Tensor:
        """Returns the error over all batches and ranks; NaN where there is no label."""
        total, count = self.sums
        return (total / count) ** (1 / self.power)
