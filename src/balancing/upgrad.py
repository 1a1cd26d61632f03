"""UPGrad: unconflicting projection of gradients."""

import numpy as np

from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.solvers import project_each


class UPGrad(GramianBalancer):
    """UPGrad: projects each gradient onto the directions that conflict with no task, then averages.

    d = 1/n sum_t proj(g_t), with the projection onto {d: <g_i, d> >= 0 for all i} (Quinton and Rey,
    "Jacobian descent for multi-objective optimization", 2024). No task's loss rises to first order.

    With ``level: features``, this holds for the gradients with respect to the features, but not
    for those with respect to the parameters.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        return project_each(problem.G).mean(0)
