"""UW-SO: soft optimal uncertainty weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses
from src.errors import UserError


class UWSO(LossBalancer):
    """UW-SO: a softmax of the inverse losses, so that small losses count more.

    w = softmax((1 / L) / temperature) over the tasks with labels, taken as a constant. 1 / L_t is
    the weight at which the uncertainty of UncertaintyWeights is optimal, and the softmax keeps a
    loss near 0 from having all of the weight (Kirchdorfer et al., "Analytical uncertainty-based
    loss weighting in multi-task learning", GCPR 2024). A loss of 0 or below leaves the softmax.

    Args:
        tasks: {task: likelihood}.
        temperature: The larger, the more equal the weights; the paper tunes it for each data set.
    """

    accumulates = False

    def __init__(self, tasks: Mapping[str, str], temperature: float = 1.0) -> None:
        super().__init__(tasks)
        if not temperature > 0:
            raise UserError(f"UWSO: temperature {temperature} must be above 0")
        self.temperature = temperature

    def weigh(self, losses: TaskLosses) -> Tensor:
        positive = losses.present_T & (losses.global_T > 0)
        scaled = 1 / (losses.global_T.where(positive, 1).double() * self.temperature)

        # the inverse of a tiny loss stays a number, so that the softmax has one
        scaled = scaled.clamp(max=torch.finfo(torch.float64).max)
        return scaled.masked_fill(~positive, -torch.inf).softmax(0).nan_to_num(0)
