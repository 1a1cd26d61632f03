"""The multiple-gradient descent algorithm."""

import numpy as np

from src.balancing.balancer import GramianBalancer, Problem
from src.balancing.solvers import min_norm_point


class MGDA(GramianBalancer):
    """The shortest convex combination of the gradients.

    d = argmin |sum_t w_t g_t|^2 over the simplex: the shortest convex combination (Desideri, C. R.
    Acad. Sci. 2012; Sener and Koltun, NeurIPS 2018).

    <g_t, d> >= |d|^2 for every task; d = 0 exactly where no direction serves all. With ``level:
    features`` it minimises an upper bound on the norm, MGDA-UB of the second paper, and stops at
    the same points if the encoder's Jacobian has full rank.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        return min_norm_point(problem.G)
