"""Smooth Tchebycheff scalarisation."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses


class SmoothTchebycheff(LossBalancer):
    """STCH: a smooth form of the largest loss.

    STCH: minimises mu log sum_t exp(L_t / mu), a smooth form of the largest loss, that is w = softmax(L / mu) (Lin et al., "Smooth
    Tchebycheff scalarization for multi-objective optimization", ICML 2024, with the ideal point 0).

    Args:
        tasks: {task: likelihood}.
        mu: Towards 0 only the largest loss counts, towards infinity all count alike.
    """

    accumulates = False

    def __init__(self, tasks: Mapping[str, str], mu: float = 1.0) -> None:
        super().__init__(tasks)
        if mu <= 0:
            raise ValueError(f"SmoothTchebycheff: mu {mu} must be above 0")
        self.mu = mu

    def weigh(self, losses: TaskLosses) -> Tensor:
        scaled = (losses.global_T / self.mu).masked_fill(~losses.present_T, -torch.inf)
        return scaled.softmax(0).nan_to_num(0)
