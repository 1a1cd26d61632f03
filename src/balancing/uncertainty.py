"""UW: weights by homoscedastic uncertainty."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from src.balancing.balancer import LossBalancer, TaskLosses


class UncertaintyWeights(LossBalancer):
    """UW: takes each loss as a negative log likelihood, and learns its scale with the network.

    With the scale sigma_t and s_t = log sigma_t^2, it minimises the sum over tasks of

        L e^-s / 2 + s / 2   for a squared error (Gaussian),
        L e^(-s/2) + s / 2   for an absolute error (Laplace, scale sigma),
        L e^-s + s / 2       for a cross-entropy (softmax of logits / sigma^2)

    (Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018).
    Every s starts at 0. A task without labels in a batch does not change its s.

    The total may be negative: the density of continuous labels can exceed 1, and its logarithm is
    then above 0. The total goes on falling while the network explains the labels better; progress
    is seen in the tasks' own losses.
    """

    weights_before_losses = True
    factor_T: Tensor
    power_T: Tensor

    def __init__(self, tasks: Mapping[str, str]) -> None:
        super().__init__(tasks)
        self.log_variances_T = nn.Parameter(torch.zeros(len(tasks)))
        factor = torch.tensor([0.5 if kind == "gaussian" else 1.0 for kind in self.likelihoods])
        power = torch.tensor([0.5 if kind == "laplace" else 1.0 for kind in self.likelihoods])
        self.register_buffer("factor_T", factor, persistent=False)
        self.register_buffer("power_T", power, persistent=False)

    def weigh(self, losses: TaskLosses) -> Tensor:
        return self.factor_T * (-self.power_T * self.log_variances_T).exp()

    def total(self, losses: TaskLosses, weights_T: Tensor) -> Tensor:
        log_scales = (self.log_variances_T * losses.present_T).sum() / 2
        return torch.dot(weights_T, losses.local_T) + log_scales
