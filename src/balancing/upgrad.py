"""Unconflicting projection of gradients."""

import numpy as np

from src.balancing.balancer import GramianBalancer, Problem
from src.balancing.solvers import project_each


class UPGrad(GramianBalancer):
    """The mean of the gradients, each projected onto the directions that no task conflicts with.

    d = 1/n sum_t proj(g_t), each gradient projected onto {d: <g_i, d> >= 0 for all i} (Quinton and
    Rey, 2024, "Jacobian descent for multi-objective optimization").

    No task's loss rises to first order. With ``level: features`` that holds of the features'
    gradients, not of the parameters'.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        return project_each(problem.G).mean(0)
