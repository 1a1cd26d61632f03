"""RLW: random loss weighting."""

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses


class RandomWeights(LossBalancer):
    """RLW: draws random weights in each step; a baseline that every method has to beat.

    w = softmax(x) with x ~ N(0, 1) per task, over the tasks with labels (Lin et al., "Reasonable
    effectiveness of random weighting", TMLR 2022). x is drawn from (seed, step), so that all ranks,
    and a resumed run, draw the same.
    """

    weights_before_losses = True

    def weigh(self, losses: TaskLosses) -> Tensor:
        # drawn on the CPU: a GPU's generator gives other numbers for the same seed
        generator = torch.Generator().manual_seed(losses.key)
        x = torch.randn(len(self.tasks), generator=generator, dtype=torch.float64)
        x = x.to(losses.global_T.device).masked_fill(~losses.present_T, -torch.inf)
        return x.softmax(0).nan_to_num(0)
