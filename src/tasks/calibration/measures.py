"""How well predicted probabilities and quantiles come true.

With p the confidence of an element and r = 1 where it is right, elements are put into ``BINS`` bins
of equal width by p. ECE = sum over bins of (n_b / n) |mean p - mean r| (Guo et al., ICML 2017).
Of one of several classes, p is the probability of the predicted class, and r whether it is the
label; of a yes-or-no label, p is the probability of yes, and r whether it is one. Of several labels
each measure is the mean over the labels that have rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from src.tasks.binary import BinaryClassification
from src.tasks.calibration.likelihood import compute_nll
from src.tasks.calibration.probabilities import WithClasses, compute_probabilities
from src.tasks.labels import is_labelled
from src.tasks.multilabel import MultilabelClassification
from src.tasks.quantiles import Quantiles, compute_pinball

BINS = 15
ECE = f"ECE ({BINS} bins)"
BRIER = "Brier"
NLL = "NLL"


@dataclass(frozen=True)
class Bin:
    """A bin of elements of near confidence.

    Attributes:
        rows: The number of elements.
        weight: The sum of their weights.
        confidence: Mean confidence; of a level of quantiles, the level.
        frequency: The share that is right; of a level of quantiles, of labels below it.
    """

    rows: int
    weight: float
    confidence: float
    frequency: float


@dataclass(frozen=True)
class Reliability:
    """How well the predictions of a task, or of one of its labels, come true.

    Attributes:
        label: The label, of several; empty for one.
        rows: The number of elements that have a label.
        values: {name of a measure: its value}.
        bins: The bins that hold elements, by rising confidence.
    """

    label: str
    rows: int
    values: dict[str, float]
    bins: tuple[Bin, ...]


def measure_classes(
    task: WithClasses, outputs: Tensor, targets: Tensor, weights: Tensor | None = None
) -> list[Reliability]:
    """Measures a task with classes: one entry, or one for each of several labels that has rows.

    Brier's score is the mean of (p - y)^2 of a yes-or-no label, and of sum_c (p_c - [y = c])^2 of
    one of several classes. Of a chain of labels, NLL is that of sentences by token.

    Args:
        task: The task.
        outputs: (N, ..., O).
        targets: (N, ...), or (N, ..., L) of several labels.
        weights: (N,) weights of the rows; None weighs all alike.
    """
    p = compute_probabilities(task, outputs)
    losses = compute_nll(task, outputs.double(), targets)
    rows = torch.ones(len(targets)) if weights is None else weights
    own = rows.double().view(-1, *[1] * (targets.ndim - 1)).expand(targets.shape)
    if not isinstance(task, MultilabelClassification):
        binary = isinstance(task, BinaryClassification)
        return [measure_label("", p, losses, targets, own, binary)]
    found = []
    for k, label in enumerate(task.labels):
        if is_labelled(targets[..., k]).any():
            parts = (p[..., k, :], losses[..., k], targets[..., k], own[..., k])
            found.append(measure_label(label, *parts, binary=True))
    return found


def measure_label(
    name: str, p: Tensor, losses: Tensor, targets: Tensor, weights: Tensor, binary: bool
) -> Reliability:
    """Measures one label.

    Args:
        name: Its name.
        p: (N, ..., C) probabilities.
        losses: (N, ...) negative log likelihoods.
        targets: (N, ...) positions of classes; of a yes-or-no label 0, 1 or NaN.
        weights: (N, ...).
        binary: Whether it is a yes-or-no label.
    """
    known = is_labelled(targets) & (weights > 0)
    p, y, w = p[known], targets[known].long(), weights[known]
    if binary:
        confidence = p[:, 1]
        right = y.double()
        brier = (confidence - right).square()
    else:
        confidence, predicted = p.max(-1)
        right = (predicted == y).double()
        brier = p.square().sum(-1) - 2 * p.gather(-1, y[:, None]).squeeze(-1) + 1
    bins = fill_bins(confidence, right, w)
    total = float(w.sum())
    values = {
        ECE: sum(b.weight * abs(b.confidence - b.frequency) for b in bins) / total,
        BRIER: float((w * brier).sum() / total),
        NLL: float((w * losses[known]).sum() / total),
    }
    return Reliability(name, len(y), values, bins)


def fill_bins(confidence: Tensor, right: Tensor, weights: Tensor) -> tuple[Bin, ...]:
    """Puts elements (n,) into bins of equal width; empty bins are left out.

    A bin holds its lower edge, and the last one 1, too.
    """
    place = (confidence * BINS).long().clamp(0, BINS - 1)
    zeros = torch.zeros(BINS, dtype=torch.float64)
    w = weights.double()
    totals = zeros.index_add(0, place, w)
    sums = zeros.index_add(0, place, w * confidence)
    hits = zeros.index_add(0, place, w * right)
    rows = torch.bincount(place, minlength=BINS)
    found = []
    for k in range(BINS):
        if rows[k]:
            weight = float(totals[k])
            found.append(
                Bin(int(rows[k]), weight, float(sums[k]) / weight, float(hits[k]) / weight)
            )
    return tuple(found)


def measure_quantiles(
    task: Quantiles, outputs: Tensor, targets: Tensor, weights: Tensor | None = None
) -> list[Reliability]:
    """Measures quantiles: at each level t, the share of labels below the predicted quantile.

    The error is the mean over levels of |share - t|. The central intervals are between the
    quantiles of two levels t and 1 - t. The pinball loss is in the label's own unit.

    Args:
        task: The task.
        outputs: (N, Q).
        targets: (N,).
        weights: (N,) weights of the rows; None weighs all alike.
    """
    rows = torch.ones(len(targets)) if weights is None else weights
    known = is_labelled(targets) & (rows > 0)
    w = rows.double()[known]
    y = task.in_units(targets[known].double())
    quantiles = task.in_units(task.predict(outputs[known].double()))
    levels = quantiles.new_tensor(task.levels)
    total = float(w.sum())
    shares = ((y[:, None] <= quantiles) * w[:, None]).sum(0) / total
    pinball = compute_pinball(quantiles, y[:, None], levels).mean(-1)
    values = {
        f"mean error of {len(levels)} levels": float((shares - levels).abs().mean()),
        "pinball": float((w * pinball).sum() / total),
    }
    for k, level in enumerate(task.levels):
        opposite = [j for j, other in enumerate(task.levels) if abs(level + other - 1) < 1e-9]
        if level < 0.5 and opposite:
            inside = (quantiles[:, k] <= y) & (y <= quantiles[:, opposite[0]])
            name = f"coverage of the central {1 - 2 * level:.4g}"
            values[name] = float((w * inside).sum() / total)
    found = [
        Bin(len(y), total, level, float(share))
        for level, share in zip(task.levels, shares, strict=True)
    ]
    return [Reliability("", len(y), values, tuple(found))]


def average_labels(found: list[Reliability]) -> dict[str, float]:
    """Returns the means of measures over labels."""
    names = found[0].values
    return {name: sum(one.values[name] for one in found) / len(found) for name in names}
