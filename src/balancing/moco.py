"""MoCo: multi-objective gradient correction."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import Level, TaskLosses
from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.solvers import project_to_simplex
from src.errors import UserError


class MoCo(GramianBalancer):
    """MoCo: MGDA on running means of the gradients, which average out their noise.

    y_t <- y_t - beta (y_t - g_t), w <- proj(w - gamma (Y Y' + rho) w), d = sum_t w_t y_t, with the
    projection onto the simplex (Fernando et al., "Mitigating gradient bias in multi-objective
    learning", ICLR 2023). Step k uses beta / k^0.5 and gamma / k^0.5. Y Y' is taken relative to its
    trace, so that gamma does not depend on the scale of the losses.

    The running means are T x P numbers. The method has no level features, since the features of
    each step belong to other samples.

    Args:
        tasks: {task: likelihood}.
        level: parameters.
        beta: Weight of the latest gradient.
        gamma: Step size of the weights.
        rho: Strength of the pull towards equal weights.
    """

    tracks = True
    levels = ("parameters",)
    level_reason = "tracks the gradients of parameters over steps"
    weights_T: Tensor
    steps: Tensor
    tracked_TP: Tensor

    def __init__(
        self,
        tasks: Mapping[str, str],
        level: Level = "parameters",
        beta: float = 0.5,
        gamma: float = 0.5,
        rho: float = 0.0,
    ) -> None:
        super().__init__(tasks, level)
        if not 0 < beta <= 1 or gamma <= 0 or rho < 0:
            raise UserError(
                f"MoCo: beta {beta} must be in (0, 1], gamma {gamma} above 0, rho {rho} at least 0"
            )
        self.beta = beta
        self.gamma = gamma
        self.rho = rho
        equal_T = torch.full((len(tasks),), 1 / len(tasks), dtype=torch.float64)
        self.register_buffer("weights_T", equal_T)
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

    def prepare(self, size: int) -> None:
        self.register_buffer("tracked_TP", torch.zeros(len(self.tasks), size))

    def track(self, rows_TP: Tensor, losses: TaskLosses) -> Tensor:
        if not rows_TP.isfinite().all():
            return rows_TP
        self.steps += 1
        beta = self.beta / float(self.steps) ** 0.5
        self.tracked_TP += beta * losses.present_T[:, None] * (rows_TP - self.tracked_TP)
        return self.tracked_TP

    def weigh(self, problem: Problem) -> np.ndarray:
        state = self.weights_T.numpy()
        here = problem.tasks
        n = len(here)

        # the tasks of this step share what they hold; absent tasks keep theirs
        share = state[here].sum()
        w = state[here] / share if share > 0 else np.full(n, 1 / n)

        # before the first step, when the balancer is tried out, the counter is 0
        gamma = self.gamma / max(float(self.steps), 1.0) ** 0.5
        w = project_to_simplex(w - gamma * (problem.G @ w / problem.G.trace() + self.rho * w))
        state[here] = w * share
        return w
