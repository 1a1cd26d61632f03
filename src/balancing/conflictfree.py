"""Conflict-free inverse gradients."""

import numpy as np

from src.balancing.balancer import GramianBalancer, Problem
from src.balancing.solvers import SINGLE, correlations, length_of, solve


class ConFIG(GramianBalancer):
    """The direction with equal cosines to all gradients.

    The unit direction with equal cosines to all gradients, as long as the sum of their projections
    onto it (Liu, Chu and Thuerey, "ConFIG: towards conflict-free training of physics informed
    neural networks", ICLR 2025).

    u = pinv(U) 1 for unit gradients U, d = (sum_t <g_t, u>) u with |u| = 1. Since pinv(U) 1 = U' (U
    U')^+ 1, the Gramian is all that it takes. Where gradients balance each other (a
    Pareto-stationary point) cosines cannot all be equal and above 0; u is then the least-squares
    solution, and may move against a task, or 0. With ``level: features`` cosines are those of the
    features' gradients.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        C, norms = correlations(problem.G)
        y = solve(C, np.ones(len(C)), noise=SINGLE)
        if (
            np.abs(C @ y).max() <= 1e-7
        ):  # all cosines are 1 where they can be equal; here they balance each other
            return np.zeros(len(C))
        length = length_of(y, C)
        u = y / norms / length
        return (problem.G @ u).sum() * u
