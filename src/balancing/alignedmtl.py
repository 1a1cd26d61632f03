"""Independent component alignment."""

import numpy as np

from src.balancing.balancer import GramianBalancer, Problem
from src.balancing.solvers import SINGLE


class AlignedMTL(GramianBalancer):
    """The gradients made orthogonal and of one length, then averaged.

    The gradients made orthogonal and of one length, that of the smallest principal component, then
    averaged (Senushkin et al., "Independent component alignment for multi-task learning", CVPR
    2023).

    With G = V diag(l) V': w = sqrt(l_min) V diag(l)^{-1/2} V' 1/n over the components above
    rounding. The condition number of the gradients' system becomes 1. All steps are as long as the
    smallest component: with two gradients that are nearly the same, but
    not to rounding, it is next to nothing, and training stands still. With ``level: features`` the
    system is that of the features' gradients.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        n = len(problem.G)
        values, V = np.linalg.eigh(problem.G)
        kept = values > values[-1] * SINGLE
        values, V = values[kept], V[:, kept]
        return np.sqrt(values.min()) * (V / np.sqrt(values)) @ V.sum(0) / n
