"""Gradient sign dropout."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import GradientBalancer, Level, TaskLosses
from src.hashing import uniform


class GradDrop(GradientBalancer):
    """In each coordinate one sign is drawn, and gradients of the other sign are dropped.

    In each coordinate one sign is drawn, and gradients of the other sign are dropped (Chen et al., "Just pick a sign", NeurIPS
    2020).

    With P = (1 + sum_t g_t / sum_t |g_t|) / 2 and U uniform in [0, 1): positive parts stay where U < P, negative ones elsewhere; d
    is the sum of what stays. With ``level: features``, the paper's place for it, a coordinate is one feature of one sample. U is a
    hash of (seed, step, coordinate of the global batch), the same on any topology.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        leak: Share of what would be dropped that passes all the same.
    """

    def __init__(self, tasks: Mapping[str, str], level: Level = "features", leak: float = 0.0) -> None:
        super().__init__(tasks, level)
        if not 0 <= leak <= 1:
            raise ValueError(f"GradDrop: leak {leak} is outside [0, 1]")
        self.leak = leak

    def combine(self, rows_TN: Tensor, losses: TaskLosses, first: int) -> Tensor:
        total = rows_TN.sum(0)
        P = (1 + total / rows_TN.abs().sum(0).clamp(min=torch.finfo(rows_TN.dtype).tiny)) / 2
        positive = uniform(losses.key, first, len(total), total.device) < P
        kept = torch.where(positive, rows_TN.clamp(min=0).sum(0), rows_TN.clamp(max=0).sum(0))
        return kept + self.leak * (total - kept) if self.leak else kept
