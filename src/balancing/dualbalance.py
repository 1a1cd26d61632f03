"""DB-MTL: dual balancing."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import Level, TaskLosses
from src.balancing.gradients import GramianBalancer, Problem
from src.errors import UserError


class DualBalance(GramianBalancer):
    """DB-MTL: balances losses by their logarithms, and gradients by their lengths.

    h_t = g_t / L_t is the gradient of log L_t. Its running mean is y_t <- (1 - b_k) y_t + b_k h_t,
    and d = max_t |y_t| sum_t y_t / |y_t| (Lin et al., "Dual-balancing for multi-task learning",
    2023). Heads follow the gradient of log L_t.

    With ``beta: 0`` there is no running mean (b_k = 1). Otherwise b_k = 1 - beta / k^0.5 in step k,
    which takes T x P numbers of memory and ``level: parameters``.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        beta: Weight of the past in the running mean.
    """

    # its weights count in the heads, whose micro-batches are over before the weights are known
    accumulates = False
    steps: Tensor
    tracked_TP: Tensor

    def __init__(
        self, tasks: Mapping[str, str], level: Level = "features", beta: float = 0.0
    ) -> None:
        super().__init__(tasks, level)
        if not 0 <= beta < 1:
            raise UserError(f"DualBalance: beta {beta} is outside [0, 1)")
        if beta and level == "features":
            raise UserError(
                "DualBalance tracks the gradients of parameters over steps: "
                "set --model.balancer.level parameters, or beta 0"
            )
        self.beta = beta
        self.tracks = beta > 0
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

    def prepare(self, size: int) -> None:
        if self.beta:
            self.register_buffer("tracked_TP", torch.zeros(len(self.tasks), size))

    def track(self, rows_TP: Tensor, losses: TaskLosses) -> Tensor:
        if not self.beta or not rows_TP.isfinite().all():
            return rows_TP
        self.steps += 1
        new = (1 - self.beta / float(self.steps) ** 0.5) if self.steps > 1 else 1.0

        # a loss of 0 has no logarithm: the running mean of that task stays
        positive = losses.present_T & (losses.global_T > 0)
        inverse = torch.where(positive, 1 / losses.global_T.where(positive, 1), 0).to(rows_TP)
        self.tracked_TP += new * positive[:, None] * (rows_TP * inverse[:, None] - self.tracked_TP)
        return self.tracked_TP

    def weigh(self, problem: Problem) -> np.ndarray:
        # tracked gradients are those of the logarithms already
        norms = problem.norms if self.beta else problem.norms / replace_nonpositive(problem.losses)
        return norms.max() / problem.norms

    def head_weights(self, problem: Problem, weights: np.ndarray) -> np.ndarray | None:
        return 1 / replace_nonpositive(problem.losses)


def replace_nonpositive(losses: np.ndarray) -> np.ndarray:
    """Replaces losses that have no logarithm by 1."""
    return np.where(losses > 0, losses, 1)
