"""Conflict-averse gradient descent."""

from collections.abc import Mapping

import numpy as np

from src.balancing.balancer import Level
from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.solvers import solve_conflict_averse
from src.errors import UserError


class CAGrad(GramianBalancer):
    """CAGrad: near the mean gradient, the direction that lowers the slowest loss fastest.

    d = argmax min_t <g_t, d> subject to |d - g_0| <= c |g_0|, where g_0 is the mean gradient (Liu
    et al., "Conflict-averse gradient descent for multi-task learning", NeurIPS 2021, Algorithm 1).

    By duality d = g_0 + c |g_0| / |g_w| g_w with g_w = sum_t w_t g_t, where w minimises
    <g_w, g_0> + c |g_0| |g_w| over the simplex. c = 0 is plain training with equal weights, and
    c >= 1 approaches MGDA.

    With ``level: features``, gradients with respect to the features define the ball and the task
    that gains least.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        c: Radius of the ball around the mean gradient, as a share of its length.
    """

    def __init__(self, tasks: Mapping[str, str], level: Level = "features", c: float = 0.5) -> None:
        super().__init__(tasks, level)
        if c < 0:
            raise UserError(f"CAGrad: c {c} must be at least 0")
        self.c = c

    def weigh(self, problem: Problem) -> np.ndarray:
        return solve_conflict_averse(problem.G, self.c)
