"""Gradient vaccine."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import GramianBalancer, Level, Problem
from src.balancing.pcgrad import other_tasks_in_random_order
from src.errors import UserError


class GradVac(GramianBalancer):
    """Each gradient is turned towards every other one until their cosine is what it usually is.

    d is the sum of the turned gradients (Wang et al., "Gradient vaccine", ICLR 2021).

    With phi the running mean of cos(g_t, g_j): for j != t in random order, with c = cos(v_t, g_j), if c < phi then v_t <- v_t +
    |v_t| (phi sqrt(1 - c^2) - c sqrt(1 - phi^2)) / (|g_j| sqrt(1 - phi^2)) g_j; and phi <- (1 - beta) phi + beta c. Fixed at phi =
    0 this is PCGrad. With ``level: features`` cosines are those of the features' gradients.

    Args:
        tasks: {task: likelihood}.
        level: Where gradients are taken: features or parameters.
        beta: Weight of the latest cosine in the running mean.
    """

    phi_TT: Tensor

    def __init__(
        self, tasks: Mapping[str, str], level: Level = "features", beta: float = 0.01
    ) -> None:
        super().__init__(tasks, level)
        if not 0 <= beta <= 1:
            raise UserError(f"GradVac: beta {beta} is outside [0, 1]")
        self.beta = beta
        self.register_buffer("phi_TT", torch.zeros(len(tasks), len(tasks), dtype=torch.float64))

    def weigh(self, problem: Problem) -> np.ndarray:
        G, n, norms = problem.G, len(problem.G), problem.norms
        place = np.ix_(problem.tasks, problem.tasks)
        phi = self.phi_TT.numpy()[place]
        V, every = np.eye(n), np.arange(n)
        for j in other_tasks_in_random_order(problem).T:
            length = np.sqrt(np.maximum(((V @ G) * V).sum(1), 0))
            dots = (V * G[j]).sum(1)
            c = np.clip(
                np.divide(dots, length * norms[j], out=np.zeros(n), where=length > 0), -1, 1
            )
            target = phi[every, j]
            sine = np.sqrt(1 - target**2)
            turn = length * (target * np.sqrt(1 - c**2) - c * sine)
            V[every, j] += np.where(
                (c < target) & (sine > 0), turn / np.where(sine > 0, norms[j] * sine, 1), 0
            )
            phi[every, j] = (1 - self.beta) * target + self.beta * c
        self.phi_TT.numpy()[place] = phi
        return V.sum(0)
