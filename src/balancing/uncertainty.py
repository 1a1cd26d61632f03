"""Homoscedastic uncertainty."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from src.balancing.balancer import LossBalancer, TaskLosses


class UncertaintyWeights(LossBalancer):
    """UW: each loss is a negative log likelihood whose scale is learnt.

    UW: each loss is a negative log likelihood whose scale sigma_t is learnt with the network
    (Kendall, Gal and Cipolla, CVPR 2018).

    With s_t = log sigma_t^2, minimises the sum over tasks of
        L e^-s / 2 + s / 2   for a squared error (Gaussian),
        L e^(-s/2) + s / 2   for an absolute error (Laplace, scale sigma),
        L e^-s + s / 2       for a cross-entropy (softmax of logits / sigma^2).
    All s start at 0. A task without labels in a batch leaves its s alone.

    A negative loss is right: with s below 0 the term s / 2 is, as the log likelihood of continuous
    labels is above 0 where their density exceeds 1. It goes on falling while the network explains
    its labels better; what it has learnt shows in the tasks' own losses.
    """

    known_before = True

    def __init__(self, tasks: Mapping[str, str]) -> None:
        super().__init__(tasks)
        self.log_variances_T = nn.Parameter(torch.zeros(len(tasks)))
        factor = torch.tensor([0.5 if kind == "gaussian" else 1.0 for kind in self.likelihoods])
        power = torch.tensor([0.5 if kind == "laplace" else 1.0 for kind in self.likelihoods])
        self.register_buffer("factor_T", factor, persistent=False)
        self.register_buffer("power_T", power, persistent=False)

    factor_T: Tensor
    power_T: Tensor

    def weigh(self, losses: TaskLosses) -> Tensor:
        return self.factor_T * (-self.power_T * self.log_variances_T).exp()

    def total(self, losses: TaskLosses, weights_T: Tensor) -> Tensor:
        return (
            torch.dot(weights_T, losses.local_T)
            + (self.log_variances_T * losses.present_T).sum() / 2
        )
