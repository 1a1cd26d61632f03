"""GradNorm: gradient normalisation."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import Level
from src.balancing.gradients import GramianBalancer, Problem
from src.errors import UserError


class GradNorm(GramianBalancer):
    """GradNorm: learns weights that equalise gradient norms, with more for tasks that learn slowly.

    With relative losses l_t = L_t / L_t(first step) and r_t = l_t / mean l, each step moves w
    against the gradient of sum_t | w_t |g_t| - m r_t^alpha |, where m is the mean of w_t |g_t|,
    taken as a constant, and rescales w to sum to n (Chen et al., "GradNorm", ICML 2018). Norms are
    taken relative to m, so that the learning rate does not depend on the scale of the losses.

    As in the paper, the weights count in the heads too. With ``level: features``, gradients are
    those with respect to the output of the last shared layer, as in the paper.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        alpha: How strongly slow tasks are favoured.
        lr: Learning rate of the weights.
    """

    # its weights count in the heads, whose micro-batches are over before the weights are known
    accumulates = False
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
        self.alpha = alpha
        self.lr = lr
        self.register_buffer("weights_T", torch.ones(len(tasks), dtype=torch.float64))
        self.register_buffer("first_T", torch.full((len(tasks),), torch.nan, dtype=torch.float64))

    def weigh(self, problem: Problem) -> np.ndarray:
        here = problem.tasks
        n = len(here)

        # the buffers are on the CPU: these arrays share their memory
        first = self.first_T.numpy()
        w = self.weights_T.numpy()
        first[here] = np.where(np.isnan(first[here]), problem.losses, first[here])
        used = w[here].copy()

        # how slowly each task learns, compared with the mean
        started = first[here] > 0
        relative = np.divide(problem.losses, first[here], out=np.ones(n), where=started)
        slowness = relative / relative.mean() if relative.mean() > 0 else np.ones(n)

        # one step of gradient descent on the absolute differences from the wanted norms
        lengths = w[here] * problem.norms
        mean = lengths.mean()
        target = mean * slowness**self.alpha
        change = self.lr * np.sign(lengths - target) * problem.norms / mean
        moved = np.maximum(used - change, 1e-3)
        w[here] = moved * used.sum() / moved.sum()
        return used

    def head_weights(self, problem: Problem, weights: np.ndarray) -> np.ndarray | None:
        return weights
