"""Several yes-or-no labels at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.binary import binary_losses, probabilities
from src.tasks.decisions import MIDDLE, Scores, best_thresholds, decision_metrics
from src.tasks.task import BadLabel, LabelCount, Task, as_numbers, classes_as_integers, pairs


@dataclass(frozen=True, kw_only=True)
class MultilabelClassification(Task):
    """Binary cross-entropy on L logits: targets (..., L) of 0, 1 or NaN, outputs (..., L).

    The task's loss is the mean over all known labels, accuracy their share that is decided right.
    AUROC and average precision are means over those labels that have both a positive and a
    negative, F1 over those that have a positive or are decided so anywhere.

    Attributes:
        labels: Names of the labels in the order of the outputs.
        pos_weight: Factor on the loss of positive elements: one for all, or one per label.
        thresholds: Per label the probability above which it counts as positive, in accuracy, F1,
            predictions and confusion matrices alike. When None each validation chooses those with
            the highest F1 on its rows, and the checkpoint keeps them: see BinaryClassification.
        per_label: Log each label's own metrics besides, as <stage>/<task>/<metric>/<label>.
    """

    not_in_loss: ClassVar[tuple[str, ...]] = ("labels", "thresholds", "per_label")
    set_by_validation: ClassVar[tuple[str, ...]] = ("thresholds",)

    event_dims: ClassVar[int] = 1
    metric_names: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "auroc", "average_precision")

    labels: tuple[str, ...] = ()
    pos_weight: float | tuple[float, ...] = 1.0
    thresholds: tuple[float, ...] | None = None
    per_label: bool = False
    monitor: str = "auroc"

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = self.pos_weight if isinstance(self.pos_weight, tuple) else (self.pos_weight,)
        if self.labels and isinstance(self.pos_weight, tuple) and len(weights) != len(self.labels):
            raise UserError(
                f"MultilabelClassification: {len(weights)} values of pos_weight for {len(self.labels)} labels"
            )
        if not all(weight > 0 for weight in weights):
            raise UserError(
                f"MultilabelClassification: pos_weight {self.pos_weight} must be above 0"
            )
        if self.thresholds is None:
            return
        if self.labels and len(self.thresholds) != len(self.labels):
            raise UserError(
                f"MultilabelClassification: {len(self.thresholds)} thresholds for {len(self.labels)} labels"
            )
        if not all(0 <= threshold < 1 for threshold in self.thresholds):
            raise UserError(
                f"MultilabelClassification: thresholds {self.thresholds} are probabilities, from 0 to below 1"
            )

    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        if values.ndim != 2 or len(self.labels or names) != values.shape[1]:
            raise UserError(
                f"must be a list of columns, one for each of the labels {', '.join(self.labels or names)}"
            )
        return self if self.labels else replace(self, labels=tuple(names))

    def encode(self, values: np.ndarray) -> Tensor:
        numbers = torch.from_numpy(as_numbers(values)).float()
        wrong = ~(numbers.isnan() | (numbers == 0) | (numbers == 1))
        if wrong.any():
            row, label = wrong.nonzero()[0].tolist()
            raise BadLabel(
                row,
                f"holds {numbers[row, label].item():g} for '{self.labels[label]}' where 0 or 1 is expected",
            )
        return numbers

    @property
    def out_features(self) -> int:
        return len(self.labels)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return binary_losses(outputs, targets, self.pos_weight)

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {"scores": Scores(self.out_features), "count": LabelCount(2, self.out_features)},
            compute_groups=False,
        )

    def derived(self, computed: dict[str, Any]) -> dict[str, Any]:
        if "scores" not in computed:  # a kind with metrics of its own
            return computed
        return decision_metrics(computed["scores"], self.in_use) | computed

    def compute(self, metrics: MetricCollection) -> dict[str, Tensor]:
        counts = metrics["count"].compute().sum(0)
        values = self.values(metrics)
        if (
            "accuracy" in values and values["accuracy"].ndim
        ):  # over all known labels, which some have more of than others
            right = (values["accuracy"].nan_to_num(0) * counts).sum()
            values["accuracy"] = right / counts.sum()
        return {name: self.scalar(value, counts) for name, value in values.items()}

    def per_output(self, metrics: MetricCollection) -> dict[str, Tensor]:
        if not self.per_label:
            return {}
        none = torch.full((self.out_features,), float("nan"))
        values = {
            metric: value if value.ndim else none for metric, value in self.values(metrics).items()
        }
        return {
            f"{metric}/{label}": value[k]
            for metric, value in values.items()
            for k, label in enumerate(self.labels)
        }

    def measured(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        classes = classes_as_integers(targets).flatten(0, -2)
        counts = torch.stack([(classes == 0).sum(0), (classes == 1).sum(0)])
        return {"preds": probabilities(outputs).flatten(0, -2), "target": classes, "counts": counts}

    def undefined(self, counts: Tensor) -> set[str]:
        if not counts.any():
            return set(self.metric_names)
        return set() if counts.all(0).any() else {"auroc", "average_precision"}

    @property
    def in_use(self) -> tuple[float, ...]:
        """The thresholds that decide, one per label."""
        return self.thresholds or (MIDDLE,) * self.out_features

    def chosen(self, metrics: MetricCollection) -> Self:
        if self.thresholds is not None or "scores" not in metrics:
            return self
        return replace(self, thresholds=best_thresholds(metrics["scores"].compute()))

    def choice_in_words(self, name: str, most: int = 8) -> str:
        shown = [
            f"{label} {threshold:.4g}"
            for label, threshold in zip(self.labels, self.in_use, strict=True)
        ]
        more = f" and {len(shown) - most} more" if len(shown) > most else ""
        return f"thresholds of {name}: {', '.join(shown[:most])}{more}"

    def predicted(self, outputs: Tensor) -> Tensor:
        """Outputs (..., L) as decisions (..., L): true above the threshold."""
        scores = probabilities(outputs)
        return scores > scores.new_tensor(self.in_use)

    def readable(self, targets: Tensor) -> dict[str, Any]:
        columns = zip(self.labels, targets.unbind(-1), strict=True)
        return {
            name: [int(label) if known else None for label, known in pairs(column)]
            for name, column in columns
        }

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        yes, scores = self.predicted(outputs).int(), probabilities(outputs)
        guess = {name: yes[:, i].tolist() for i, name in enumerate(self.labels)}
        return guess | {f"p_{name}": scores[:, i].tolist() for i, name in enumerate(self.labels)}
