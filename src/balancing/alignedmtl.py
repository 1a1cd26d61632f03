"""Aligned-MTL: independent component alignment."""

import numpy as np

from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.solvers import SINGLE


class AlignedMTL(GramianBalancer):
    """Makes the gradients orthogonal and equally long, then averages them.

    Their common length is that of the smallest principal component (Senushkin et al., "Independent
    component alignment for multi-task learning", CVPR 2023). With G = V diag(l) V', the weights are

        w = sqrt(l_min) V diag(l)^(-1/2) V' 1/n

    over the components that are larger than rounding. The system of gradients then has condition
    number 1. A step is as long as the smallest component allows: if two gradients are nearly equal,
    but not equal up to rounding, it is almost 0, and training stalls.

    With ``level: features``, the system is that of the gradients with respect to the features.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        n = len(problem.G)

        # components below the rounding of fp32 gradients have no direction
        values, V = np.linalg.eigh(problem.G)
        kept = values > values[-1] * SINGLE
        values = values[kept]
        V = V[:, kept]

        return np.sqrt(values.min()) * (V / np.sqrt(values)) @ V.sum(0) / n
