"""Impartial multi-task learning: both halves of the paper."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from src.balancing.balancer import GramianBalancer, LossBalancer, Problem, TaskLosses
from src.balancing.solvers import SINGLE, correlations, solve


class ImpartialGradients(GramianBalancer):
    """IMTL-G: the direction with equal projections onto all gradients.

    IMTL-G: the d with equal projections onto all gradients, <d, g_t / |g_t|> the same for every t,
    as an affine combination (Liu et al., "Towards impartial multi-task learning", ICLR 2021).

    With correlations C of the gradients: C y = 1, w_t = (y_t / |g_t|) / sum. Where the sum is
    negative the paper's d would raise every loss alike; it is turned round. Where no direction has
    equal projections (the gradients balance each other), d = 0. With
    ``level: features`` projections are onto the features' gradients, as in the paper.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        C, norms = correlations(problem.G)
        y = solve(C, np.ones(len(C)), noise=SINGLE)
        if np.abs(C @ y - 1).max() > 1e-6:
            return np.zeros(len(C))
        w = y / norms
        total = np.abs(w.sum())
        return w / total if total > 1e-12 * np.abs(w).sum() else np.zeros(len(C))


class ImpartialLoss(LossBalancer):
    """IMTL-L: learnt scales that bring all losses to one size.

    IMTL-L: minimises sum_t e^{s_t} L_t - s_t over the network and s, so that all scaled losses
    e^{s_t} L_t tend to 1 (Liu et al., ICLR 2021).
    """

    known_before = True

    def __init__(self, tasks: Mapping[str, str]) -> None:
        super().__init__(tasks)
        self.scales_T = nn.Parameter(torch.zeros(len(tasks)))

    def weigh(self, losses: TaskLosses) -> Tensor:
        return self.scales_T.exp()

    def total(self, losses: TaskLosses, weights_T: Tensor) -> Tensor:
        return torch.dot(weights_T, losses.local_T) - (self.scales_T * losses.present_T).sum()
