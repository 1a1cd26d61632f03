"""Angles between predicted and true directions, over very many pixels."""

import torch
from torch import Tensor

from src.tasks.metric_classes import TaskMetric

THRESHOLDS = (11.25, 22.5, 30.0)  # degrees
BIN = 0.01  # degrees; the median is exact to half of it
BINS = round(180 / BIN)


class AngleErrors(TaskMetric):
    """Mean and median of angles, and the shares of them below 11.25, 22.5 and 30 degrees.

    The median comes from a histogram, which ranks can sum, with bins of 0.01 degrees: it is off by
    0.005 degrees at most. Mean and shares are exact.
    """

    histogram: Tensor
    below: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(BINS, dtype=torch.long)
        self.add_state("histogram", zeros, dist_reduce_fx="sum")
        self.add_state("below", torch.zeros(3, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, angles: Tensor) -> None:
        """Adds angles (N,) in degrees, float64, all known."""
        places = (angles / BIN).long().clamp(0, BINS - 1)
        self.histogram += torch.bincount(places, minlength=BINS)
        self.below += torch.stack([(angles < threshold).sum() for threshold in THRESHOLDS])
        self.total += angles.sum()

    def compute(self) -> Tensor:
        """Returns mean, median, and the three shares (5,), NaN where there are no angles."""
        count = self.histogram.sum()
        head = torch.stack([self.total / count, self.find_median(count)])
        return torch.cat([head, self.below.double() / count])

    def find_median(self, count: Tensor) -> Tensor:
        """Returns the median, the mean of the middle two where their number is even."""
        ranks = torch.stack([(count - 1) // 2, count // 2])

        # the first bin up to which there are more angles than that
        places = torch.searchsorted(self.histogram.cumsum(0), ranks, right=True)
        middle = ((places.double() + 0.5) * BIN).mean()
        return torch.where(count > 0, middle, float("nan"))


def measure_angles(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns the angles (N,) in degrees between vectors (N, 3) of any length, in float64.

    The arc tangent of sine and cosine has all digits; the arc cosine has few near 0 and 180.
    """
    x, y = outputs.double(), targets.double()
    sine = torch.linalg.cross(x, y).norm(dim=-1)
    cosine = (x * y).sum(-1)
    return torch.rad2deg(torch.atan2(sine, cosine))
