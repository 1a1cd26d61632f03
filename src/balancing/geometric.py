"""Geometric and logarithmic means of the losses: blind to their scales."""

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses


class LogSum(LossBalancer):
    """The sum of the losses' logarithms, blind to their scales.

    Minimises sum_t log L_t, that is w_t = 1 / L_t: multiplying a loss by a constant changes nothing
    (one of the scale-invariant losses of Chennupati et al., CVPR Workshops 2019, and of Navon et
    al., ICML 2022, as SI).

    A loss of exactly 0 leaves the sum.
    """

    accumulates = False

    def weigh(self, losses: TaskLosses) -> Tensor:
        positive = losses.present_T & (losses.global_T > 0)
        return torch.where(positive, 1 / losses.global_T.where(positive, 1), 0)


class GeometricMean(LogSum):
    """GLS: the geometric mean of the losses.

    GLS: minimises (prod_t L_t)^(1/n), the geometric mean over the n tasks with labels, that is w_t
    = mean / (n L_t) (Chennupati et al., "MultiNet++: multi-stream feature aggregation and geometric
    loss strategy", CVPR Workshops 2019).

    Not moved by the ratio of the losses' scales, only by their product. A loss of exactly 0 leaves
    the mean.
    """

    def weigh(self, losses: TaskLosses) -> Tensor:
        inverse = super().weigh(losses)
        n = (inverse > 0).sum().clamp(min=1)
        logarithms = torch.where(inverse > 0, -inverse.where(inverse > 0, 1).log(), 0)
        return (logarithms.sum() / n).exp() / n * inverse
