"""Decisions between yes and no: thresholds on probabilities, and metrics of the decisions.

Accuracy, F1, predicted classes and confusion matrices of a task agree, since they all come from
one threshold.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multilabel_auroc, multilabel_average_precision
from torchmetrics.utilities import dim_zero_cat

from src.tasks.labels import MISSING
from src.tasks.metric_classes import TaskMetric

MIDDLE = 0.5


class ScoredRows(NamedTuple):
    """Probabilities of rows beside their labels.

    Attributes:
        preds: (N, L) Probabilities.
        target: (N, L) 0, 1 or ``MISSING``.
        weights: (N,) Weights of the rows; None weighs all alike.
    """

    preds: Tensor
    target: Tensor
    weights: Tensor | None = None

    def weigh(self, cells: Tensor) -> Tensor:
        """Returns the weight of each row's cells (N, L), 0 where they are False."""
        if self.weights is None:
            return cells
        return cells * self.weights.double().reshape(-1, 1)


class Scores(TaskMetric):
    """Keeps probabilities and targets of L labels, and the weights of rows where there are some.

    Rankings and the best threshold need all of them at once.

    Args:
        labels: How many labels there are.
    """

    preds: list[Tensor]
    target: list[Tensor]
    weights: list[Tensor]

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.labels = labels
        self.add_state("preds", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")
        self.add_state("weights", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        """Adds a batch; either all batches have weights, or none has.

        Args:
            preds: (N, L) probabilities; for one label also (N,).
            target: 0, 1 or ``MISSING``, of the same shape.
            weights: (N,) weights of the rows.
        """
        self.preds.append(preds.reshape(-1, self.labels))
        # int8 has room for MISSING
        self.target.append(target.reshape(-1, self.labels).to(torch.int8))
        if weights is not None:
            self.weights.append(weights)

    def compute(self) -> ScoredRows:
        """Returns the rows of all batches and ranks."""
        return self.read_own()

    def read_own(self) -> ScoredRows:
        """Returns the rows of this rank alone."""
        if not len(self.preds):
            none = torch.zeros(0, self.labels, dtype=torch.float64, device=self.device)
            return ScoredRows(none, none.to(torch.int8))
        weights = dim_zero_cat(self.weights) if len(self.weights) else None
        return ScoredRows(dim_zero_cat(self.preds), dim_zero_cat(self.target), weights)


def compute_decision_metrics(scores: ScoredRows, thresholds: Sequence[float]) -> dict[str, Tensor]:
    """Metrics per label (L,), each NaN where labels or decisions do not define it.

    Accuracy needs a known label; F1 = 2 TP / (2 TP + FP + FN) a positive label or a positive
    decision; AUROC and average precision need a positive and a negative label.

    Args:
        scores: The rows.
        thresholds: One per label; a probability above it is a yes.
    """
    preds, target, weights = scores
    known = target != MISSING
    yes = preds > preds.new_tensor(list(thresholds))
    true = target == 1
    hits = scores.weigh(yes & true).sum(0).double()
    # false positives and false negatives
    wrong = scores.weigh((yes != true) & known).sum(0).double()
    if weights is None:
        auroc = compute_ranking_metric(multilabel_auroc, preds, target)
        precision = compute_ranking_metric(multilabel_average_precision, preds, target)
    else:
        auroc, precision = rank_weighted(scores).unbind(-1)
    return {
        "accuracy": 1 - wrong / weigh_labels(scores),
        "f1": 2 * hits / (2 * hits + wrong),
        "auroc": auroc,
        "average_precision": precision,
    }


def weigh_labels(scores: ScoredRows) -> Tensor:
    """Returns the sum (L,) of the weights of the rows whose label is known."""
    return scores.weigh(scores.target != MISSING).sum(0)


def rank_weighted(scores: ScoredRows) -> Tensor:
    """Returns AUROC and average precision per label, (L, 2), of rows with weights."""
    assert scores.weights is not None
    preds = scores.preds.reshape(-1, scores.target.shape[-1])
    weights = scores.weights.reshape(-1)
    found = []
    for column, labels in zip(preds.T, scores.target.reshape(preds.shape).T, strict=True):
        known = labels != MISSING
        found.append(rank_label(column[known], labels[known] == 1, weights[known]))
    return torch.stack(found)


def rank_label(preds: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """Returns AUROC and average precision (2,) of one label, NaN where rows have only one class.

    With t_i and f_i the weights of the true and false positives above the i-th threshold, from the
    highest to the lowest of the distinct scores, AUROC is the area below t over f by trapezoids,
    and average precision is sum_i (t_i - t_(i-1)) / t_n x t_i / (t_i + f_i).

    Args:
        preds: (N,) scores.
        positive: (N,) whether the label is positive.
        weights: (N,) weights of the rows.
    """
    values, place = preds.double().unique(return_inverse=True)
    own = weights.double()
    zeros = torch.zeros_like(values)
    gains = zeros.index_add(0, place, own * positive).flip(0)
    losses = zeros.index_add(0, place, own * ~positive).flip(0)
    true = gains.cumsum(0)
    false = losses.cumsum(0)
    if not len(values) or true[-1] == 0 or false[-1] == 0:
        return preds.new_full((2,), float("nan"))
    area = (losses * (true - gains / 2)).sum() / (true[-1] * false[-1])
    # 0 / 0 above the first row with a weight
    precision = (true / (true + false)).nan_to_num(0)
    return torch.stack([area, (gains * precision).sum() / true[-1]])


def compute_ranking_metric(
    function: Callable[..., Tensor], preds: Tensor, target: Tensor
) -> Tensor:
    """Returns a ranking metric per label (L,), NaN where a label has only one class."""
    both = (target == 0).any(0) & (target == 1).any(0)
    values = preds.new_full(both.shape, float("nan"))
    settings: dict[str, Any] = {
        "num_labels": int(both.sum()),
        "average": "none",
        "ignore_index": MISSING,
        "validate_args": False,
    }
    if both.any():
        values[both] = function(preds[:, both], target[:, both].long(), **settings).to(values)
    return values


def count_decisions(scores: ScoredRows, thresholds: Sequence[float]) -> Tensor:
    """Returns counts of rows (L, 2, 2), whatever they weigh: label, truth, decision."""
    preds, target, _ = scores
    yes = preds > preds.new_tensor(list(thresholds))
    no = ~yes
    cells = [((target == truth) & decision).sum(0) for truth in (0, 1) for decision in (no, yes)]
    return torch.stack(cells, -1).view(-1, 2, 2)


def find_best_thresholds(scores: ScoredRows) -> tuple[float, ...]:
    """Returns the threshold of each label with the highest F1, see :func:`find_best_threshold`."""
    preds, target, weights = scores
    known = target != MISSING
    thresholds = []
    for label in range(preds.shape[1]):
        rows = known[:, label]
        own = None if weights is None else weights[rows]
        thresholds.append(find_best_threshold(preds[rows, label], target[rows, label] == 1, own))
    return tuple(thresholds)


def find_best_threshold(scores: Tensor, positive: Tensor, weights: Tensor | None = None) -> float:
    """Returns the threshold t for which "score > t" has the highest F1.

    Only the order of scores matters, so that t can be anywhere between two neighbours. It is 0.5
    where that is between them, else their middle, which rounding does not reach. Of equally good
    intervals the one nearest to 0.5 counts, the lower one of two. Rows without a positive or
    without a negative say nothing about t: it is 0.5.

    Args:
        scores: Probabilities (N,).
        positive: Whether the label is positive (N,).
        weights: The weights of the rows (N,); None weighs all alike.
    """
    if not positive.any() or positive.all() or not scores.isfinite().all():
        return MIDDLE
    values, place = scores.double().unique(return_inverse=True)  # in rising order
    own = torch.ones_like(scores.double()) if weights is None else weights.double()
    rows = torch.zeros_like(values).index_add(0, place, own)
    hits = torch.zeros_like(values).index_add(0, place, own * positive)

    # a threshold from lower[i] to below upper[i] takes the rows from i on for positive, and the
    # last one takes none
    above = F.pad(rows.flip(0).cumsum(0).flip(0), (0, 1))
    true = F.pad(hits.flip(0).cumsum(0).flip(0), (0, 1))
    f1 = 2 * true / (above + (own * positive).sum())
    lower = F.pad(values, (1, 0))
    upper = F.pad(values, (0, 1), value=1.0)
    f1[lower >= upper] = -1  # no probability is below 0 or above 1

    # rounding may bring the middle of two neighbours onto the upper one
    middle = (lower + upper) / 2
    threshold = torch.where(middle < upper, middle, lower)
    threshold[(lower <= MIDDLE) & (upper > MIDDLE)] = MIDDLE

    distance = (threshold - MIDDLE).abs().where(f1 == f1.max(), torch.inf)
    return float(threshold[distance.argmin()])
