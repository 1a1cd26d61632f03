"""Fixed weights, also known as linear scalarisation."""

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses


class StaticWeights(LossBalancer):
    """L = sum_t L_t, each loss with its fixed weight (``model.weights``, or the task's own); all 1 is the plain sum.

    Tuned, it is a baseline that few methods beat: Kurin et al., NeurIPS 2022; Xin et al., NeurIPS
    2022.
    """

    known_before = True

    def weigh(self, losses: TaskLosses) -> Tensor:
        return torch.ones_like(losses.local_T)

    def total(self, losses: TaskLosses, weights_T: Tensor) -> Tensor:
        """Returns the sum."""
        return losses.local_T.sum()
