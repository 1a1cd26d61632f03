"""GradVac: gradient vaccine."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.balancing.balancer import Level
from src.balancing.gradients import GramianBalancer, Problem
from src.balancing.pcgrad import shuffle_other_tasks
from src.errors import UserError


class GradVac(GramianBalancer):
    """GradVac: turns each gradient towards the others until their cosines are as usual.

    phi_tj is the running mean of cos(g_t, g_j). For each task t, v_t starts as g_t. Then, for the
    tasks j != t in random order, with c = cos(v_t, g_j): if c < phi,

        v_t <- v_t + |v_t| (phi sqrt(1 - c^2) - c sqrt(1 - phi^2)) / (|g_j| sqrt(1 - phi^2)) g_j,

    and phi <- (1 - beta) phi + beta c. d is the sum of the v_t (Wang et al., "Gradient vaccine",
    ICLR 2021). With phi fixed at 0 this is PCGrad.

    With ``level: features``, cosines are those of the gradients with respect to the features.

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
        G = problem.G
        norms = problem.norms
        n = len(G)
        place = np.ix_(problem.tasks, problem.tasks)
        phi = self.phi_TT.numpy()[place]

        # row t of V holds the weights of the gradients in v_t; all rows take a step at once
        V = np.eye(n)
        every = np.arange(n)
        for j in shuffle_other_tasks(problem).T:
            length = np.sqrt(np.maximum(((V @ G) * V).sum(1), 0))
            dots = (V * G[j]).sum(1)
            cosine = np.divide(dots, length * norms[j], out=np.zeros(n), where=length > 0)
            c = np.clip(cosine, -1, 1)
            target = phi[every, j]
            sine = np.sqrt(1 - target**2)
            turn = length * (target * np.sqrt(1 - c**2) - c * sine)

            # a target of exactly 1 or -1 has no finite turn
            turns = (c < target) & (sine > 0)
            V[every, j] += np.where(turns, turn / np.where(sine > 0, norms[j] * sine, 1), 0)
            phi[every, j] = (1 - self.beta) * target + self.beta * c
        self.phi_TT.numpy()[place] = phi
        return V.sum(0)
