"""Projection of the mean gradient onto the dual cone."""

import numpy as np

from src.balancing.balancer import GramianBalancer, Problem
from src.balancing.solvers import project


class DualProj(GramianBalancer):
    """The mean gradient, projected onto the directions that no task conflicts with.

    d = proj(1/n sum_t g_t), the mean projected onto {d: <g_i, d> >= 0 for all i} (Lopez-Paz and
    Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017).

    The nearest direction to plain training in which no task's loss rises to first order. With
    ``level: features`` that holds of the features' gradients, not of the parameters'.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        n = len(problem.G)
        return project(problem.G, np.full(n, 1 / n))
