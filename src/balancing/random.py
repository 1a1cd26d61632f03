"""Random loss weighting."""

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses


class RandomWeights(LossBalancer):
    """RLW: random weights in each step, a baseline that any method has to beat.

    RLW: in each step w = softmax(x), x ~ N(0, 1) per task, over the tasks that are there (Lin et
    al., "Reasonable effectiveness of random weighting", TMLR 2022). A baseline that any method has
    to beat.

    Drawn from (seed, step), so that all ranks, and a run that resumes, draw the same.
    """

    known_before = True

    def weigh(self, losses: TaskLosses) -> Tensor:
        x = torch.randn(
            len(self.tasks),
            generator=torch.Generator().manual_seed(losses.key),
            dtype=torch.float64,
        )
        x = x.to(losses.global_T.device).masked_fill(~losses.present_T, -torch.inf)
        return x.softmax(0).nan_to_num(0)
