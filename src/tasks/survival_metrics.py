"""Metrics of predicted survival: Harrell's concordance, and the Brier score over time."""

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from src.tasks.metric_classes import TaskMetric


class SurvivalRows(TaskMetric):
    """Keeps risks, curves and outcomes of an evaluation.

    Both metrics compare rows with each other, so that they need all rows of all processes. It costs
    memory for the rows.
    """

    curves: list[Tensor]
    outcomes: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("curves", [], dist_reduce_fx="cat")
        self.add_state("outcomes", [], dist_reduce_fx="cat")

    def update(self, curves: Tensor, outcomes: Tensor, row_weights: Tensor | None = None) -> None:
        """Adds rows, missing labels among them.

        Args:
            curves: (N, 1 + J) expected times, then the probabilities of survival at J times.
            outcomes: (N, 2) times and whether the event was then, NaN where missing.
            row_weights: (N,) weights of the rows; None weighs all alike.
        """
        if row_weights is None:
            row_weights = torch.ones_like(outcomes[:, 0])
        self.curves.append(curves)
        self.outcomes.append(torch.cat([outcomes, row_weights[:, None].to(outcomes)], -1))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Returns curves, and outcomes with weights (N, 3), of all batches and processes."""
        return dim_zero_cat(self.curves), dim_zero_cat(self.outcomes)


def compute_concordance(
    times: Tensor, events: Tensor, expected: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Computes Harrell's concordance: the share of pairs whose order is predicted.

    A pair counts if the earlier of its times is an event, or if both times are the same and one of
    them is an event, which is the earlier then. Equal predictions count as half (Harrell et al.,
    "Evaluating the yield of medical tests", JAMA 1982).

    Args:
        times: (N,) times of an event, or of the end of observation.
        events: (N,) whether the time is that of an event.
        expected: (N,) predicted times, or any number that is larger for a later event.
        weights: (N,) weights of rows, fp64, whose product is that of a pair; None weighs all alike.

    Returns:
        The share; NaN where no pair counts.
    """
    weights = torch.ones_like(times, dtype=torch.float64) if weights is None else weights
    # rows in order of falling times, where rows without an event come first among equal times
    order = torch.argsort(events.double(), stable=True)
    order = order[torch.argsort(times[order], descending=True, stable=True)]
    times, events, weights = times[order], events[order].bool(), weights[order]
    ranks = torch.unique(expected[order], return_inverse=True)[1]

    # the rows before the place of a row's time and kind are later than it
    keys = torch.stack([-times, events.to(times.dtype)], -1)
    _, groups, sizes = torch.unique(keys, dim=0, return_inverse=True, return_counts=True)
    starts = (sizes.cumsum(0) - sizes)[groups][events]
    own = ranks[events]
    limits = torch.cat([own, own + 1])
    below, up_to = sum_below(weights, ranks, starts.repeat(2), limits).chunk(2)

    of_first = torch.cat([weights.new_zeros(1), weights.cumsum(0)])[starts]
    right = of_first - (below + up_to) / 2
    return (weights[events] * right).sum() / (weights[events] * of_first).sum()


def sum_below(weights: Tensor, ranks: Tensor, ends: Tensor, limits: Tensor) -> Tensor:
    """Sums for each query the weights of ranks below its limit among the first ranks.

    The first ``end`` places are a union of blocks whose sizes are powers of two; each block is
    sorted, and searched for the limit: O((N + Q) log^2 N), where all pairs would be O(N Q).

    Args:
        weights: (N,) weights, fp64.
        ranks: (N,) integers from 0 to N - 1.
        ends: (Q,) how many of the first ranks count.
        limits: (Q,) integers from 0 to N.

    Returns:
        (Q,) sums.
    """
    places = torch.arange(len(ranks), device=ranks.device)
    sums = weights.new_zeros(len(ends))
    for bit in range(len(ranks).bit_length()):
        taken = (ends >> bit) & 1 == 1
        block = ends >> bit
        # of this size, the block ends where the larger ones leave off
        block = block[taken] - 1
        ordered, order = torch.sort((places >> bit) * (len(ranks) + 1) + ranks)
        found = torch.searchsorted(ordered, block * (len(ranks) + 1) + limits[taken])
        up_to = torch.cat([weights.new_zeros(1), weights[order].cumsum(0)])
        sums[taken] += up_to[found] - up_to[block << bit]
    return sums


def estimate_censoring(
    times: Tensor, events: Tensor, at: Tensor, before: bool, weights: Tensor | None = None
) -> Tensor:
    """Estimates the probability that a row is not censored up to some times (Kaplan and Meier).

    Events come before censorings of the same time.

    Args:
        times: (N,) times of an event, or of the end of observation.
        events: (N,) whether the time is that of an event.
        at: (Q,) times.
        before: Whether censorings at the very time count as later.
        weights: (N,) weights of rows; None weighs all alike.
    """
    weights = torch.ones_like(times) if weights is None else weights
    values, place = torch.unique(times, return_inverse=True)
    total = torch.zeros_like(values).index_add_(0, place, weights)
    lost = weights * (1 - events.to(times.dtype))
    censored = torch.zeros_like(values).index_add_(0, place, lost)
    at_risk = total.flip(0).cumsum(0).flip(0) - (total - censored)
    stays = torch.where(censored > 0, 1 - censored / at_risk, 1.0).cumprod(0)
    curve = torch.cat([torch.ones_like(values[:1]), stays])
    return curve[torch.searchsorted(values, at.contiguous(), right=not before)]


def compute_brier(
    times: Tensor, events: Tensor, survival: Tensor, at: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Computes the Brier score at each of some times, weighted for censoring.

    BS(t) is the mean over rows of S(t)^2 / G(T-) where the event was at T <= t, and of
    (1 - S(t))^2 / G(t) where T > t, with the predicted probability of survival S and the estimated
    probability G not to be censored, of the same rows (Graf et al., "Assessment and comparison of
    prognostic classification schemes", Statistics in Medicine 1999).

    Args:
        times: (N,) times of an event, or of the end of observation.
        events: (N,) whether the time is that of an event.
        survival: (N, J) predicted probabilities of survival.
        at: (J,) the times that they are for.
        weights: (N,) weights of rows, above 0; None weighs all alike.

    Returns:
        (J,) scores; NaN where G(t) is 0 or nobody is observed up to the time.
    """
    weights = torch.ones_like(times) if weights is None else weights
    of_rows = estimate_censoring(times, events, times, before=True, weights=weights)
    of_times = estimate_censoring(times, events, at, before=False, weights=weights)
    gone = (times[:, None] <= at) & events[:, None].bool()
    there = times[:, None] > at
    lost = survival.square() * gone / of_rows[:, None]
    kept = torch.where(there, (1 - survival).square() / of_times, 0.0)
    scores = (weights[:, None] * (lost + kept)).sum(0) / weights.sum()
    return scores.where((of_times > 0) & (at <= times.max()), float("nan"))


def integrate_over(scores: Tensor, at: Tensor) -> Tensor:
    """Returns the mean of scores (J,) over times (J,), by trapezoids; NaN scores are left out."""
    known = ~scores.isnan()
    scores, at = scores[known], at[known]
    if len(at) < 2:
        return scores.mean()
    return torch.trapezoid(scores, at) / (at[-1] - at[0])
