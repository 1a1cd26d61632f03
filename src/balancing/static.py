"""Fixed weights, also known as linear scalarisation."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses


class StaticWeights(LossBalancer):
    """L = sum_t w_t L_t with the tasks' own fixed weights; all 1 is the plain sum.

    Tuned, it is a baseline that few methods beat: Kurin et al., NeurIPS 2022; Xin et al., NeurIPS 2022.
    """

    weights_T: Tensor

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__(weights)
        # the weights belong to the config, not to the checkpoint
        self.register_buffer("weights_T", torch.tensor(list(weights.values()), dtype=torch.float32), persistent=False)

    def weigh(self, losses: TaskLosses) -> Tensor:
        return self.weights_T
