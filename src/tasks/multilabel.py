"""Several yes-or-no labels at once."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAccuracy, MultilabelAUROC, MultilabelAveragePrecision, MultilabelF1Score
from torchmetrics.functional.classification import multilabel_auroc, multilabel_average_precision
from torchmetrics.utilities import dim_zero_cat

from src.tasks.binary import binary_losses, probabilities
from src.tasks.task import MISSING, BadLabel, LabelCount, Task, as_numbers, classes_as_integers


class AUROC(MultilabelAUROC):
    """AUROC per label, NaN where a label lacks a positive or a negative (torchmetrics fails on a label with no known element)."""

    def compute(self) -> Tensor:  # type: ignore[override]  # the base class is a curve
        """Returns (L,)."""
        return per_label(multilabel_auroc, self.preds, self.target)


class AveragePrecision(MultilabelAveragePrecision):
    """Average precision per label, NaN where a label lacks a positive or a negative."""

    def compute(self) -> Tensor:  # type: ignore[override]  # the base class is a curve
        """Returns (L,)."""
        return per_label(multilabel_average_precision, self.preds, self.target)


def per_label(function: Callable[..., Tensor], preds: Any, target: Any) -> Tensor:
    """A ranking metric of the labels that have both a positive and a negative, NaN for the others."""
    preds, target = dim_zero_cat(preds), dim_zero_cat(target)
    both = (target == 0).any(0) & (target == 1).any(0)
    values = preds.new_full(both.shape, float("nan"))
    settings: dict[str, Any] = {"num_labels": int(both.sum()), "average": "none", "ignore_index": MISSING, "validate_args": False}
    if both.any():
        values[both] = function(preds[:, both], target[:, both], **settings).to(values)
    return values


@dataclass(frozen=True, kw_only=True)
class MultilabelClassification(Task):
    """Binary cross-entropy on L logits: targets (..., L) of 0, 1 or NaN, outputs (..., L).

    The task's loss is the mean over all known labels. AUROC and average precision are means over those labels that have both a
    positive and a negative, F1 over those that are known anywhere.

    Attributes:
        labels: Names of the labels in the order of the outputs.
        pos_weight: Factor on the loss of positive elements: one for all, or one per label.
    """

    event_dims: ClassVar[int] = 1
    metric_names: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "auroc", "average_precision")

    labels: tuple[str, ...] = ()
    pos_weight: float | tuple[float, ...] = 1.0
    monitor: str = "auroc"

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = self.pos_weight if isinstance(self.pos_weight, tuple) else (self.pos_weight,)
        if self.labels and isinstance(self.pos_weight, tuple) and len(weights) != len(self.labels):
            raise ValueError(f"MultilabelClassification: {len(weights)} values of pos_weight for {len(self.labels)} labels")
        if not all(weight > 0 for weight in weights):
            raise ValueError(f"MultilabelClassification: pos_weight {self.pos_weight} must be above 0")

    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        if values.ndim != 2 or len(self.labels or names) != values.shape[1]:
            raise ValueError(f"must be a list of columns, one for each of the labels {', '.join(self.labels or names)}")
        return self if self.labels else replace(self, labels=tuple(names))

    def encode(self, values: np.ndarray) -> Tensor:
        numbers = torch.from_numpy(as_numbers(values)).float()
        wrong = ~(numbers.isnan() | (numbers == 0) | (numbers == 1))
        if wrong.any():
            row, label = wrong.nonzero()[0].tolist()
            raise BadLabel(row, f"holds {numbers[row, label].item():g} for '{self.labels[label]}' where 0 or 1 is expected")
        return numbers

    @property
    def out_features(self) -> int:
        return len(self.labels)

    def alike(self) -> tuple[Hashable, ...]:
        return (*super().alike(), self.pos_weight)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return binary_losses(outputs, targets, self.pos_weight)

    def metrics(self) -> MetricCollection:
        settings: dict[str, Any] = {"num_labels": self.out_features, "ignore_index": MISSING, "validate_args": False}
        return MetricCollection(
            {
                "accuracy": MultilabelAccuracy(average="micro", **settings),
                "f1": MultilabelF1Score(average="none", **settings),
                "auroc": AUROC(average="none", **settings),
                "average_precision": AveragePrecision(average="none", **settings),
                "count": LabelCount(2, self.out_features),
            },
            compute_groups=[["accuracy"], ["f1"], ["auroc", "average_precision"], ["count"]],
        )

    def measured(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        classes = classes_as_integers(targets).flatten(0, -2)
        counts = torch.stack([(classes == 0).sum(0), (classes == 1).sum(0)])
        return {"preds": probabilities(outputs).flatten(0, -2), "target": classes, "counts": counts}

    def undefined(self, counts: Tensor) -> set[str]:
        if not counts.any():
            return set(self.metric_names)
        return set() if counts.all(0).any() else {"auroc", "average_precision"}

    def scalar(self, value: Tensor, counts: Tensor) -> Tensor:
        return value[counts.any(0)].nanmean() if value.ndim else value.float()

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        probabilities = outputs.sigmoid()
        guess = {name: (probabilities[:, i] > 0.5).int().tolist() for i, name in enumerate(self.labels)}
        return guess | {f"p_{name}": probabilities[:, i].tolist() for i, name in enumerate(self.labels)}
