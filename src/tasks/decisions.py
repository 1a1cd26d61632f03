"""Decisions between yes and no: thresholds on probabilities, and metrics of the decisions.

Accuracy, F1, predicted classes and confusion matrices of a task agree, since they all come from
one threshold.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multilabel_auroc, multilabel_average_precision
from torchmetrics.utilities import dim_zero_cat

from src.tasks.labels import MISSING
from src.tasks.metric_classes import TaskMetric

MIDDLE = 0.5


class Scores(TaskMetric):
    """Keeps probabilities and targets of L labels.

    Rankings and the best threshold need all of them at once.

    Args:
        labels: How many labels there are.
    """

    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.labels = labels
        self.add_state("preds", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds (N, L) probabilities and targets of 0, 1 or ``MISSING``; for one label also (N,)."""
        self.preds.append(preds.reshape(-1, self.labels))
        # int8 has room for MISSING
        self.target.append(target.reshape(-1, self.labels).to(torch.int8))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Returns probabilities and targets (N, L) of all batches and ranks."""
        return self.read_own()

    def read_own(self) -> tuple[Tensor, Tensor]:
        """Returns probabilities and targets (n, L) of this rank alone."""
        if not len(self.preds):
            none = torch.zeros(0, self.labels, dtype=torch.float64, device=self.device)
            return none, none.to(torch.int8)
        return dim_zero_cat(self.preds), dim_zero_cat(self.target)


def compute_decision_metrics(
    scores: tuple[Tensor, Tensor], thresholds: Sequence[float]
) -> dict[str, Tensor]:
    """Metrics per label (L,), each NaN where labels or decisions do not define it.

    Accuracy needs a known label; F1 = 2 TP / (2 TP + FP + FN) a positive label or a positive
    decision; AUROC and average precision need a positive and a negative label.

    Args:
        scores: Probabilities (N, L), and targets of 0, 1 or ``MISSING`` (N, L).
        thresholds: One per label; a probability above it is a yes.
    """
    preds, target = scores
    known = target != MISSING
    yes = preds > preds.new_tensor(list(thresholds))
    true = target == 1
    hits = (yes & true).sum(0).double()
    wrong = ((yes != true) & known).sum(0).double()  # false positives and false negatives
    return {
        "accuracy": 1 - wrong / known.sum(0),
        "f1": 2 * hits / (2 * hits + wrong),
        "auroc": compute_ranking_metric(multilabel_auroc, preds, target),
        "average_precision": compute_ranking_metric(multilabel_average_precision, preds, target),
    }


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


def count_decisions(scores: tuple[Tensor, Tensor], thresholds: Sequence[float]) -> Tensor:
    """Returns counts (L, 2, 2): label, truth, decision."""
    preds, target = scores
    yes = preds > preds.new_tensor(list(thresholds))
    no = ~yes
    cells = [((target == truth) & decision).sum(0) for truth in (0, 1) for decision in (no, yes)]
    return torch.stack(cells, -1).view(-1, 2, 2)


def find_best_thresholds(scores: tuple[Tensor, Tensor]) -> tuple[float, ...]:
    """Returns the threshold of each label with the highest F1, see :func:`find_best_threshold`."""
    preds, target = scores
    known = target != MISSING
    thresholds = []
    for label in range(preds.shape[1]):
        rows = known[:, label]
        thresholds.append(find_best_threshold(preds[rows, label], target[rows, label] == 1))
    return tuple(thresholds)


def find_best_threshold(scores: Tensor, positive: Tensor) -> float:
    """Returns the threshold t for which "score > t" has the highest F1.

    Only the order of scores matters, so that t can be anywhere between two neighbours. It is 0.5
    where that is between them, else their middle, which rounding does not reach. Of equally good
    intervals the one nearest to 0.5 counts, the lower one of two. Rows without a positive or
    without a negative say nothing about t: it is 0.5.

    Args:
        scores: Probabilities (N,).
        positive: Whether the label is positive (N,).
    """
    if not positive.any() or positive.all() or not scores.isfinite().all():
        return MIDDLE
    values, place = scores.double().unique(return_inverse=True)  # in rising order
    rows = torch.bincount(place, minlength=len(values)).double()
    hits = torch.bincount(place[positive], minlength=len(values)).double()

    # a threshold from lower[i] to below upper[i] takes the rows from i on for positive, and the
    # last one takes none
    above = F.pad(rows.flip(0).cumsum(0).flip(0), (0, 1))
    true = F.pad(hits.flip(0).cumsum(0).flip(0), (0, 1))
    f1 = 2 * true / (above + positive.sum())
    lower = F.pad(values, (1, 0))
    upper = F.pad(values, (0, 1), value=1.0)
    f1[lower >= upper] = -1  # no probability is below 0 or above 1

    # rounding may bring the middle of two neighbours onto the upper one
    middle = (lower + upper) / 2
    threshold = torch.where(middle < upper, middle, lower)
    threshold[(lower <= MIDDLE) & (upper > MIDDLE)] = MIDDLE

    distance = (threshold - MIDDLE).abs().where(f1 == f1.max(), torch.inf)
    return float(threshold[distance.argmin()])
