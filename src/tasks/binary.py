"""One of two classes."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryAveragePrecision, BinaryF1Score

from src.tasks.task import MISSING, Label, LabelCount, Task, classes_as_integers, constant, distinct, labelled, position_in


@dataclass(frozen=True, kw_only=True)
class BinaryClassification(Task):
    """Binary cross-entropy on one logit: targets (...) of 0, 1 or NaN, outputs (..., 1).

    Attributes:
        classes: Names of the negative and the positive class; learnt from the training labels when empty (the later one in
            order, such as 1, True, 'yes', '>50K', is positive).
        pos_weight: Factor on the loss of positive elements.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "auroc", "average_precision")

    classes: tuple[Label, ...] = ()
    pos_weight: float = 1.0
    monitor: str = "auroc"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.classes) not in (0, 2):
            raise ValueError(f"BinaryClassification: {len(self.classes)} classes where 2 are expected, the negative one first")
        if self.pos_weight <= 0:
            raise ValueError(f"BinaryClassification: pos_weight {self.pos_weight} must be above 0")

    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        if values.ndim > 1:
            raise ValueError(f"has {values.shape[1]} columns, where a BinaryClassification has one")
        if self.classes:
            return self
        found = distinct(values)
        if len(found) != 2:
            raise ValueError(f"has {len(found)} values in the training split, where a binary task has 2")
        return replace(self, classes=found)

    def encode(self, values: np.ndarray) -> Tensor:
        positions = torch.from_numpy(position_in(self.classes, values))
        return torch.where(positions == MISSING, float("nan"), positions.float())

    @property
    def out_features(self) -> int:
        return 1

    def alike(self) -> tuple[Hashable, ...]:
        return (*super().alike(), self.pos_weight)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return binary_losses(outputs.squeeze(-1), targets, self.pos_weight)

    def metrics(self) -> MetricCollection:
        settings: dict[str, Any] = {"ignore_index": MISSING, "validate_args": False}
        return MetricCollection(
            {
                "accuracy": BinaryAccuracy(**settings),
                "f1": BinaryF1Score(**settings),
                "auroc": BinaryAUROC(**settings),
                "average_precision": BinaryAveragePrecision(**settings),
                "count": LabelCount(2),
            },
            compute_groups=[["accuracy", "f1"], ["auroc", "average_precision"], ["count"]],
        )

    def measured(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        classes = classes_as_integers(targets).flatten()
        counts = torch.bincount(classes[labelled(classes)], minlength=2)
        return {"preds": probabilities(outputs).flatten(), "target": classes, "counts": counts}

    def undefined(self, counts: Tensor) -> set[str]:
        if not counts.any():
            return set(self.metric_names)
        return set() if counts.all() else {"auroc", "average_precision"}

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        probability = outputs.sigmoid().squeeze(-1)
        guess = [self.classes[int(p > 0.5)] for p in probability.tolist()]
        return {"": guess, f"p_{self.classes[1]}": probability.tolist()}


def probabilities(logits: Tensor) -> Tensor:
    """What metrics see of logits: torchmetrics takes a batch of logits that all lie in [0, 1] for probabilities.

    In fp64, since in fp32 all logits above 17 are the same probability, and ranking metrics need their order.
    """
    return logits.double().sigmoid()


def binary_losses(logits: Tensor, targets: Tensor, pos_weight: float | tuple[float, ...]) -> Tensor:
    """Binary cross-entropy per element, 0 where the target is NaN."""
    mask = labelled(targets)
    weight = None if pos_weight == 1.0 else constant(pos_weight, (logits.device, logits.dtype))
    losses = F.binary_cross_entropy_with_logits(logits, targets.where(mask, 0), pos_weight=weight, reduction="none")
    return losses * mask
