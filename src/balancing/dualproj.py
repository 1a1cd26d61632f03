"""Projection of the mean gradient onto the dual cone."""

import numpy as np

from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.solvers import project


class DualProj(GramianBalancer):
    """Projects the mean gradient onto the directions that conflict with no task.

    d is the projection of 1/n sum_t g_t onto {d: <g_i, d> >= 0 for all i} (Lopez-Paz and Ranzato,
    "Gradient episodic memory for continual learning", NeurIPS 2017). It is the direction nearest to
    plain training in which no task's loss rises to first order.

    With ``level: features``, this holds for the gradients with respect to the features, but not
    for those with respect to the parameters.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        n = len(problem.G)
        return project(problem.G, np.full(n, 1 / n))
