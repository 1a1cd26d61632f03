"""Nash bargaining, and its generalisation to alpha-fairness."""

from collections.abc import Mapping

import numpy as np

from src.balancing.balancer import GramianBalancer, Level, Problem
from src.balancing.solvers import fair_weights
from src.errors import UserError


class NashMTL(GramianBalancer):
    """The Nash bargaining solution.

    The Nash bargaining solution: d = sum_t w_t g_t with G w = 1 / w, w > 0 (Navon et al.,
    "Multi-task learning as a bargaining game", ICML 2022).

    The unique minimiser of w'Gw / 2 - sum_t log w_t; each task gains as much as any other in
    proportion, and |d| = sqrt(n) whatever the gradients' scale. Where the gradients balance each
    other there is no bargain, and d = 0. With ``level: features`` players bargain for the direction
    of the features.
    """

    def weigh(self, problem: Problem) -> np.ndarray:
        return fair_weights(problem.G, alpha=1.0)


class FairGrad(GramianBalancer):
    """Alpha-fair allocation of the tasks' gains.

    alpha-fair resource allocation: G w = w^{-1/alpha}, w > 0 (Ban and Ji, "Fair resource allocation
    in multi-task learning", ICML 2024).

    alpha = 1 is NashMTL; larger values care more for the task that gains least. Scales of losses do
    not matter for alpha = 1 alone: all gradients times s give d times s^((1 - alpha) / (1 +
    alpha)), and a task whose loss is in larger units gains less. Where the gradients balance each
    other, d = 0.
    With ``level: features`` gains are measured on the features' gradients.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        alpha: Degree of fairness, above 0; solved to rounding from 0.1 to 20, also for lengths of
            gradients six orders apart.
    """

    def __init__(
        self, tasks: Mapping[str, str], level: Level = "features", alpha: float = 2.0
    ) -> None:
        super().__init__(tasks, level)
        if alpha <= 0:
            raise UserError(f"FairGrad: alpha {alpha} must be above 0")
        self.alpha = alpha

    def weigh(self, problem: Problem) -> np.ndarray:
        return fair_weights(problem.G, self.alpha)
