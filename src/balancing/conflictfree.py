"""ConFIG: conflict-free inverse gradients."""

import numpy as np

from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.nonnegative import solve_semidefinite
from src.balancing.solvers import SINGLE, measure_length, normalise


class ConFIG(GramianBalancer):
    """ConFIG: the direction that has the same cosine with all gradients.

    Its length is the sum of the gradients' projections onto it (Liu, Chu and Thuerey, "ConFIG:
    towards conflict-free training of physics informed neural networks", ICLR 2025). With the unit
    gradients as the rows of U:

        u = pinv(U) 1 / |pinv(U) 1|,    d = (sum_t <g_t, u>) u.

    Since pinv(U) 1 = U' (U U')^+ 1, the Gramian holds all that is needed. At a Pareto-stationary
    point the gradients cancel out, and no direction has the same positive cosine with all of them.
    u is then the least-squares solution, which may conflict with a task, or 0.

    With ``level: features``, cosines are those of the gradients with respect to the features.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        C, norms = normalise(problem.G)
        y = solve_semidefinite(C, np.ones(len(C)), noise=SINGLE)

        # C y is 1 in each row if the cosines can be equal, and 0 if the gradients cancel out
        if np.abs(C @ y).max() <= 1e-7:
            return np.zeros(len(C))

        length = measure_length(y, C)
        u = y / norms / length
        return (problem.G @ u).sum() * u
