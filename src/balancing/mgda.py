"""MGDA: the multiple-gradient descent algorithm."""

import numpy as np

from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.solvers import find_min_norm_point


class MGDA(GramianBalancer):
    """MGDA: the shortest convex combination of the gradients.

    d = sum_t w_t g_t with w = argmin |sum_t w_t g_t|^2 over the simplex (Desideri, C. R. Acad. Sci.
    2012; Sener and Koltun, NeurIPS 2018). Then <g_t, d> >= |d|^2 for every task, and d = 0 exactly
    where no direction lowers all losses.

    With ``level: features``, w minimises an upper bound on the norm (MGDA-UB of the second paper).
    It stops at the same points if the encoder's Jacobian has full rank.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        return find_min_norm_point(problem.G)
