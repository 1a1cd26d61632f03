"""SDMGrad: direction-oriented multi-objective descent."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import Level
from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.solvers import project_to_simplex
from src.errors import UserError


class SDMGrad(GramianBalancer):
    """SDMGrad: MGDA with a pull towards the mean gradient.

    d = (sum_t w_t g_t + lambda g_0) / (1 + lambda) with the mean gradient g_0, where w approaches
    the minimiser of |sum_t w_t g_t + lambda g_0|^2 over the simplex (Xiao, Ban and Ji,
    "Direction-oriented multi-objective learning", NeurIPS 2023). w continues from the last step by
    projected gradient steps of size 1 / (n mean |g|^2), which averages out the noise of batches.
    lambda = 0 is a smoothed MGDA; a large lambda is plain training.

    With ``level: features``, the norm is that of the gradients with respect to the features.

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
                f"SDMGrad: regularisation {regularisation} must be at least 0, "
                f"and inner_steps {inner_steps} at least 1"
            )
        self.regularisation = regularisation
        self.inner_steps = inner_steps
        equal_T = torch.full((len(tasks),), 1 / len(tasks), dtype=torch.float64)
        self.register_buffer("weights_T", equal_T)

    def weigh(self, problem: Problem) -> np.ndarray:
        state = self.weights_T.numpy()
        here = problem.tasks
        n = len(here)

        # the tasks of this step share what they hold; absent tasks keep theirs
        share = state[here].sum()
        w = state[here] / share if share > 0 else np.full(n, 1 / n)

        # the trace is n mean |g|^2: relative to it, the step size is 1
        G = problem.G / problem.G.trace()
        pull = self.regularisation * G.mean(1)
        for _ in range(self.inner_steps):
            w = project_to_simplex(w - (G @ w + pull))
        state[here] = w * share
        return (w + self.regularisation / n) / (1 + self.regularisation)
