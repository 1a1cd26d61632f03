"""IMTL: impartial multi-task learning, by gradients and by losses."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from src.balancing.balancer import LossBalancer, TaskLosses
from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.nonnegative import solve_semidefinite
from src.balancing.solvers import SINGLE, normalise


class ImpartialGradients(GramianBalancer):
    """IMTL-G: the direction that has the same projection onto all gradients.

    d is the affine combination of the gradients with <d, g_t / |g_t|> the same for every t (Liu et
    al., "Towards impartial multi-task learning", ICLR 2021). With the correlations C of the
    gradients: C y = 1, w_t = (y_t / |g_t|) / sum_s (y_s / |g_s|).

    Where that sum is negative, the paper's d would raise every loss alike, and its sign is changed.
    Where the gradients cancel out, no direction has equal projections, and d = 0.

    With ``level: features``, projections are onto the gradients with respect to the features, as in
    the paper.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        C, norms = normalise(problem.G)
        y = solve_semidefinite(C, np.ones(len(C)), noise=SINGLE)

        # C y is 1 in each row unless the gradients cancel out
        if np.abs(C @ y - 1).max() > 1e-6:
            return np.zeros(len(C))
        w = y / norms
        total = np.abs(w.sum())
        return w / total if total > 1e-12 * np.abs(w).sum() else np.zeros(len(C))


class ImpartialLoss(LossBalancer):
    """IMTL-L: learns scales that bring all losses to the same size.

    It minimises sum_t e^{s_t} L_t - s_t over the network and s, so that all scaled losses
    e^{s_t} L_t tend to 1 (Liu et al., "Towards impartial multi-task learning", ICLR 2021).
    """

    weights_before_losses = True

    def __init__(self, tasks: Mapping[str, str]) -> None:
        super().__init__(tasks)
        self.scales_T = nn.Parameter(torch.zeros(len(tasks)))

    def weigh(self, losses: TaskLosses) -> Tensor:
        return self.scales_T.exp()

    def total(self, losses: TaskLosses, weights_T: Tensor) -> Tensor:
        # a task without labels in the batch must not move its scale
        scales = (self.scales_T * losses.present_T).sum()
        return torch.dot(weights_T, losses.local_T) - scales
