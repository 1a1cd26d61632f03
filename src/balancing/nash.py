"""Nash-MTL, and its generalisation FairGrad."""

from collections.abc import Mapping

import numpy as np

from src.balancing.balancer import Level
from src.balancing.fairness import solve_fair_weights
from src.balancing.gradients import GramianBalancer, Problem
from src.errors import UserError


class NashMTL(GramianBalancer):
    """Nash-MTL: the direction on which the tasks agree in Nash's bargaining game.

    d = sum_t w_t g_t with G w = 1 / w, w > 0 (Navon et al., "Multi-task learning as a bargaining
    game", ICML 2022). w is the unique minimiser of w'Gw / 2 - sum_t log w_t. In proportion, each
    task gains as much as any other, and |d| = sqrt(n) whatever the scale of the gradients. Where
    the gradients cancel out, the game has no solution, and d = 0.

    With ``level: features``, the tasks bargain for the direction of the features.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        return solve_fair_weights(problem.G, alpha=1.0)


class FairGrad(GramianBalancer):
    """FairGrad: alpha-fair allocation of the tasks' gains.

    G w = w^{-1/alpha}, w > 0 (Ban and Ji, "Fair resource allocation in multi-task learning", ICML
    2024). alpha = 1 is NashMTL, and larger values favour the task that gains least. Where the
    gradients cancel out, d = 0.

    The scales of the losses do not matter for alpha = 1 alone. Otherwise a factor s on all
    gradients changes d by s^((1 - alpha) / (1 + alpha)), and a task whose loss is in larger units
    gains less.

    With ``level: features``, gains are measured on the gradients with respect to the features.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        alpha: Degree of fairness, above 0. The solution is exact to rounding from 0.1 to 20, also
            for gradients whose lengths are six orders of magnitude apart.
    """

    def __init__(
        self, tasks: Mapping[str, str], level: Level = "features", alpha: float = 2.0
    ) -> None:
        super().__init__(tasks, level)
        if alpha <= 0:
            raise UserError(f"FairGrad: alpha {alpha} must be above 0")
        self.alpha = alpha

    def weigh(self, problem: Problem) -> np.ndarray:
        return solve_fair_weights(problem.G, self.alpha)
