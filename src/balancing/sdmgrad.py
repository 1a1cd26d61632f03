"""Direction-oriented multi-objective descent."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import GramianBalancer, Level, Problem
from src.balancing.solvers import onto_simplex
from src.errors import UserError


class SDMGrad(GramianBalancer):
    """MGDA held near the mean gradient.

    MGDA held near the mean gradient: d = (sum_t w_t g_t + lambda g_0) / (1 + lambda), w on its way
    to the minimiser of |sum_t w_t g_t + lambda g_0|^2 over the simplex (Xiao, Ban and Ji,
    "Direction-oriented multi-objective learning", NeurIPS 2023).

    w goes on from the last step by projected gradient steps of size 1 / (n mean |g|^2), which
    averages over the batches' noise. lambda = 0 is a smoothed MGDA, a large one plain training.
    With ``level: features`` the norm is that of the features' gradients.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        regularisation: lambda.
        inner_steps: Steps of w per step of the network.
    """

    weights_T: Tensor

    def __init__(
        self,
        tasks: Mapping[str, str],
        level: Level = "features",
        regularisation: float = 0.3,
        inner_steps: int = 20,
    ) -> None:
        super().__init__(tasks, level)
        if regularisation < 0 or inner_steps < 1:
            raise UserError(
                f"SDMGrad: regularisation {regularisation} and inner_steps {inner_steps} must be at least 0 and 1"
            )
        self.regularisation, self.inner_steps = regularisation, inner_steps
        self.register_buffer(
            "weights_T", torch.full((len(tasks),), 1 / len(tasks), dtype=torch.float64)
        )

    def weigh(self, problem: Problem) -> np.ndarray:
        n, state, here = len(problem.G), self.weights_T.numpy(), problem.tasks
        share = state[here].sum()  # what the tasks hold that are here
        w = state[here] / share if share > 0 else np.full(n, 1 / n)
        G = problem.G / problem.G.trace()
        pull = self.regularisation * G.mean(1)
        for _ in range(self.inner_steps):
            w = onto_simplex(w - (G @ w + pull))
        state[here] = w * share
        return (w + self.regularisation / n) / (1 + self.regularisation)
