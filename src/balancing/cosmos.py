"""COSMOS: one network for all preferences, whose losses point where the preference points."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses
from src.errors import UserError


class COSMOS(LossBalancer):
    """COSMOS: minimises sum_t p_t L_t - mu cos(p, L), with a preference p drawn for each step.

    The cosine is the one of the angle between the preference and the vector of losses. It spreads
    the solutions of the preferences over the front (Ruchte and Grabocka, "Scalable Pareto front
    approximation for deep multi-objective learning", ICDM 2021). Both terms are over the tasks with
    labels, and w_t is the derivative by L_t.

    The sharing architecture draws the preference, and the network must read it:
    ``--model.sharing PaLoRA``. The paper puts p beside the inputs instead. With an architecture
    that takes no preference, p is 1 / T for every task.

    Args:
        tasks: {task: likelihood}.
        mu: Strength of the cosine, lambda in the paper.
    """

    accumulates = False
    reads_preference = True

    def __init__(self, tasks: Mapping[str, str], mu: float = 1.0) -> None:
        super().__init__(tasks)
        if not mu >= 0:
            raise UserError(f"COSMOS: mu {mu} must be at least 0")
        self.mu = mu

    def weigh(self, losses: TaskLosses) -> Tensor:
        p, L, present = self._read(losses)
        cosine, lengths = measure_angle(p, L)
        if not lengths > 0:
            return p

        # the derivative of the cosine by L
        slope = (p - cosine * p.norm() * L / L.norm()) / lengths
        return p - self.mu * slope * present

    def total(self, losses: TaskLosses, weights_T: Tensor) -> Tensor:
        # the derivative of the cosine is at right angles to L: what is missing is its value
        p, L, _ = self._read(losses)
        cosine, _ = measure_angle(p, L)
        return torch.dot(weights_T, losses.local_T) - (self.mu * cosine).to(losses.local_T)

    def _read(self, losses: TaskLosses) -> tuple[Tensor, Tensor, Tensor]:
        """Returns preference, losses and presence, of 0 for tasks without labels, in float64."""
        present = losses.present_T.double()
        p = torch.full_like(present, 1 / len(present))
        if losses.preference_T is not None:
            p = losses.preference_T.to(present)
        return p * present, losses.global_T.double() * present, present


def measure_angle(p: Tensor, L: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cosine of the angle between two vectors, and the product of their lengths.

    The cosine is 0 where a vector is 0.
    """
    lengths = p.norm() * L.norm()
    return torch.where(lengths > 0, p.dot(L) / lengths.where(lengths > 0, 1), 0), lengths
