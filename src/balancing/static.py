"""Fixed weights, also known as linear scalarisation."""

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses


class StaticWeights(LossBalancer):
    """Minimises the sum of the losses, each with its fixed weight.

    The weights are ``model.weights``, or the tasks' own; all 1 is the plain sum. With tuned weights
    this is a baseline that few methods beat (Kurin et al., NeurIPS 2022; Xin et al., NeurIPS 2022).
    """

    weights_before_losses = True

    def weigh(self, losses: TaskLosses) -> Tensor:
        return torch.ones_like(losses.local_T)

    def total(self, losses: TaskLosses, weights_T: Tensor) -> Tensor:
        # one operation less than the product with a vector of ones
        if losses.preference_T is None:
            return losses.local_T.sum()
        return super().total(losses, weights_T)
