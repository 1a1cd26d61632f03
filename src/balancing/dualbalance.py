"""Dual balancing."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import GramianBalancer, Level, Problem, TaskLosses
from src.errors import UserError


class DualBalance(GramianBalancer):
    """DB-MTL: losses balanced by their logarithm, gradients by their length.

    DB-MTL: balances losses by their logarithm, and gradients by their length (Lin et al.,
    "Dual-balancing for multi-task learning", 2023).

    h_t = g_t / L_t is the gradient of log L_t, tracked as y_t <- (1 - b_k) y_t + b_k h_t, and d =
    max |y| sum_t y_t / |y_t|. Heads
    follow log L_t. With ``beta: 0`` nothing is tracked (b_k = 1); otherwise b_k = 1 - beta / k^0.5
    in step k, which takes T x P
    numbers and ``level: parameters``.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        beta: How much of the past is kept.
    """

    accumulates = (
        False  # its weights count in the heads, whose micro-batches are over before it knows them
    )
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
                "DualBalance tracks the gradients of parameters over steps: set --model.balancer.level parameters, or beta 0"
            )
        self.beta, self.tracks = beta, beta > 0
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

    def prepare(self, size: int) -> None:
        if self.beta:
            self.register_buffer("tracked_TP", torch.zeros(len(self.tasks), size))

    def track(self, rows_TP: Tensor, losses: TaskLosses) -> Tensor:
        if not self.beta or not rows_TP.isfinite().all():
            return rows_TP
        self.steps += 1
        new = (1 - self.beta / float(self.steps) ** 0.5) if self.steps > 1 else 1.0
        positive = losses.present_T & (losses.global_T > 0)
        inverse = torch.where(positive, 1 / losses.global_T.where(positive, 1), 0).to(rows_TP)
        self.tracked_TP += new * positive[:, None] * (rows_TP * inverse[:, None] - self.tracked_TP)
        return self.tracked_TP

    def weigh(self, problem: Problem) -> np.ndarray:
        norms = (
            problem.norms
            if self.beta
            else problem.norms / np.where(problem.losses > 0, problem.losses, 1)
        )
        return norms.max() / problem.norms

    def head_weights(self, problem: Problem, weights: np.ndarray) -> np.ndarray | None:
        return 1 / np.where(problem.losses > 0, problem.losses, 1)
