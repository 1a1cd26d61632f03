"""Means of the losses that do not depend on the losses' scales: log-sum and geometric mean."""

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses


class LogSum(LossBalancer):
    """Minimises sum_t log L_t, which is w_t = 1 / L_t.

    A constant factor on a loss changes nothing (one of the scale-invariant losses of Chennupati et
    al., CVPR Workshops 2019, and of Navon et al., ICML 2022, where it is called SI). A loss of
    exactly 0 leaves the sum.
    """

    accumulates = False

    def weigh(self, losses: TaskLosses) -> Tensor:
        positive = losses.present_T & (losses.global_T > 0)
        return torch.where(positive, 1 / losses.global_T.where(positive, 1), 0)


class GeometricMean(LogSum):
    """GLS: minimises the geometric mean of the losses.

    The mean m = (prod_t L_t)^(1/n) is over the n tasks with labels, and w_t = m / (n L_t)
    (Chennupati et al., "MultiNet++: multi-stream feature aggregation and geometric loss strategy",
    CVPR Workshops 2019). The direction does not depend on the ratios of the losses' scales, and its
    length only on their product. A loss of exactly 0 leaves the mean.
    """

    def weigh(self, losses: TaskLosses) -> Tensor:
        inverse = super().weigh(losses)
        positive = inverse > 0
        n = positive.sum().clamp(min=1)

        # a product of many losses would overflow: their logarithms are summed
        logarithms = torch.where(positive, -inverse.where(positive, 1).log(), 0)
        return (logarithms.sum() / n).exp() / n * inverse
