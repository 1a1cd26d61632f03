"""Gradient normalisation."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import GramianBalancer, Level, Problem
from src.errors import UserError


class GradNorm(GramianBalancer):
    """Weights that bring all weighted gradient norms to one size, more for tasks that train slowly.

    Weights that bring all weighted gradient norms to one size, more for tasks that train slowly
    (Chen et al., "GradNorm", ICML 2018).

    With relative losses l_t = L_t / L_t(first step) and r_t = l_t / mean l, each step moves w against the gradient of sum_t | w_t
    |g_t| - m r_t^alpha |, m the mean of w_t |g_t| taken as constant, and rescales w to sum n. Lengths are taken relative to m, so
    that the rate does not depend on the losses' scale. As in the paper the weights count in the heads too, and, with ``level:
    features``, gradients are those of the last shared layer's output.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        alpha: How strongly slow tasks are favoured.
        lr: Learning rate of the weights.
    """

    accumulates = (
        False  # its weights count in the heads, whose micro-batches are over before it knows them
    )
    weights_T: Tensor
    first_T: Tensor

    def __init__(
        self,
        tasks: Mapping[str, str],
        level: Level = "features",
        alpha: float = 1.5,
        lr: float = 0.025,
    ) -> None:
        super().__init__(tasks, level)
        if lr <= 0:
            raise UserError(f"GradNorm: lr {lr} must be above 0")
        self.alpha, self.lr = alpha, lr
        self.register_buffer("weights_T", torch.ones(len(tasks), dtype=torch.float64))
        self.register_buffer("first_T", torch.full((len(tasks),), torch.nan, dtype=torch.float64))

    def weigh(self, problem: Problem) -> np.ndarray:
        here = problem.tasks
        first, w = self.first_T.numpy(), self.weights_T.numpy()
        first[here] = np.where(np.isnan(first[here]), problem.losses, first[here])
        used, lengths = w[here].copy(), w[here] * problem.norms
        relative = np.divide(
            problem.losses, first[here], out=np.ones(len(here)), where=first[here] > 0
        )
        mean = lengths.mean()
        target = (
            mean * (relative / relative.mean()) ** self.alpha
            if relative.mean() > 0
            else np.full(len(here), mean)
        )
        moved = np.maximum(used - self.lr * np.sign(lengths - target) * problem.norms / mean, 1e-3)
        w[here] = moved * used.sum() / moved.sum()
        return used

    def head_weights(self, problem: Problem, weights: np.ndarray) -> np.ndarray | None:
        return weights
