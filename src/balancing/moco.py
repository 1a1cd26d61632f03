"""Multi-objective gradient correction."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import GramianBalancer, Level, Problem, TaskLosses
from src.balancing.solvers import onto_simplex
from src.errors import UserError


class MoCo(GramianBalancer):
    """MGDA on tracked gradients, whose noise averages out.

    MGDA on tracked gradients, whose noise averages out: y_t <- y_t - beta (y_t - g_t), w <- proj(w
    - gamma (Y Y' + rho) w), d = sum_t w_t y_t (Fernando et al., "Mitigating gradient bias in
    multi-objective learning", ICLR 2023).

    Step k uses beta / k^0.5 and gamma / k^0.5; Y Y' is taken relative to its trace, so that gamma
    does not depend on the losses' scale. The tracked gradients are T x P numbers, and gradients of
    features, of other samples in each step, cannot be tracked.

    Args:
        tasks: {task: likelihood}.
        level: parameters.
        beta: Weight of the latest gradient.
        gamma: Step size of the weights.
        rho: Pull of the weights towards equality.
    """

    tracks = True
    levels = ("parameters",)
    why = "tracks the gradients of parameters over steps"
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
        self.beta, self.gamma, self.rho = beta, gamma, rho
        self.register_buffer(
            "weights_T", torch.full((len(tasks),), 1 / len(tasks), dtype=torch.float64)
        )
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
        n, state, here = len(problem.G), self.weights_T.numpy(), problem.tasks
        share = state[here].sum()
        w = state[here] / share if share > 0 else np.full(n, 1 / n)
        gamma = (
            self.gamma / max(float(self.steps), 1.0) ** 0.5
        )  # tried out before the first step, too
        w = onto_simplex(w - gamma * (problem.G @ w / problem.G.trace() + self.rho * w))
        state[here] = w * share
        return w
