"""Several yes-or-no labels at once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAccuracy, MultilabelAUROC, MultilabelAveragePrecision, MultilabelF1Score

from src.tasks.binary import binary_losses
from src.tasks.task import MISSING, BadLabel, LabelCount, Task, as_numbers, classes_as_integers


@dataclass(frozen=True, kw_only=True)
class MultilabelClassification(Task):
    """Binary cross-entropy on L logits: targets (..., L) of 0, 1 or NaN, outputs (..., L).

    The task's loss is the mean over all known labels. AUROC and average precision are means over those labels that have both a
    positive and a negative.

    Attributes:
        labels: Names of the labels in the order of the outputs.
        pos_weight: Factor on the loss of positive elements: one for all, or one per label.
    """

    event_dims: ClassVar[int] = 1
    metric_names: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "auroc", "average_precision")

    labels: tuple[str, ...] = ()
    pos_weight: float | tuple[float, ...] = 1.0
    monitor: str = "auroc"

    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
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

    def alike(self) -> Hashable:
        return (*super().alike(), self.pos_weight)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return binary_losses(outputs, targets, self.pos_weight)

    def metrics(self) -> MetricCollection:
        settings: dict[str, Any] = dict(num_labels=self.out_features, ignore_index=MISSING, validate_args=False)
        return MetricCollection(
            {
                "accuracy": MultilabelAccuracy(average="micro", **settings),
                "f1": MultilabelF1Score(average="macro", **settings),
                "auroc": MultilabelAUROC(average="none", **settings),
                "average_precision": MultilabelAveragePrecision(average="none", **settings),
                "count": LabelCount(2, self.out_features),
            },
            compute_groups=[["accuracy"], ["f1"], ["auroc", "average_precision"], ["count"]],
        )

    def measured(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        classes = classes_as_integers(targets).flatten(0, -2)
        counts = torch.stack([(classes == 0).sum(0), (classes == 1).sum(0)])
        return {"preds": outputs.sigmoid().flatten(0, -2), "target": classes, "counts": counts}

    def undefined(self, counts: Tensor) -> set[str]:
        if not counts.any():
            return set(self.metric_names)
        return set() if counts.all(0).any() else {"auroc", "average_precision"}

    def scalar(self, value: Tensor, counts: Tensor) -> Tensor:
        return value[counts.all(0)].float().mean() if value.ndim else value.float()

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        probabilities = outputs.sigmoid()
        guess = {name: (probabilities[:, i] >= 0.5).int().tolist() for i, name in enumerate(self.labels)}
        return guess | {f"p_{name}": probabilities[:, i].tolist() for i, name in enumerate(self.labels)}
