"""Several yes-or-no labels at once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.added_metrics import AddedMetric
from src.tasks.binary import binary_losses, example_probabilities, probabilities
from src.tasks.decisions import (
    MIDDLE,
    Scores,
    compute_decision_metrics,
    find_best_thresholds,
    weigh_labels,
)
from src.tasks.distilling import compare_probabilities
from src.tasks.ensembling import mix_logits, name_spread
from src.tasks.label_count import LabelCount
from src.tasks.labels import (
    MISSING,
    BadLabel,
    is_labelled,
    pair_with_known,
    to_integers,
    to_numbers,
)
from src.tasks.task import Task
from src.tasks.weighted_metrics import expand_weights


@dataclass(frozen=True, kw_only=True)
class MultilabelClassification(Task):
    """Binary cross-entropy on L logits: targets (..., L) of 0, 1 or NaN, outputs (..., L).

    The task's loss is the mean over all known labels, accuracy the share of them that is decided
    right. AUROC and average precision are means over the labels that have both a positive and a
    negative, F1 over the labels that have a positive or are decided so anywhere.

    A metric that ``metrics`` adds is computed as a binary one for each label, from the rows where
    that label is known. One that exists for all labels together alone (ExactMatch), or whose
    ``average`` is set, sees all labels of a row at once.

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
                f"MultilabelClassification: {len(weights)} values of pos_weight for "
                f"{len(self.labels)} labels"
            )
        if not all(weight > 0 for weight in weights):
            raise UserError(
                f"MultilabelClassification: pos_weight {self.pos_weight} must be above 0"
            )
        if self.thresholds is None:
            return
        if self.labels and len(self.thresholds) != len(self.labels):
            raise UserError(
                f"MultilabelClassification: {len(self.thresholds)} thresholds for "
                f"{len(self.labels)} labels"
            )
        if not all(0 <= threshold < 1 for threshold in self.thresholds):
            raise UserError(
                f"MultilabelClassification: thresholds {self.thresholds} are probabilities, from 0 "
                "to below 1"
            )

    # -- labels ------------------------------------------------------------------------------------
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        labels = self.labels or names
        if values.ndim != 2 or len(labels) != values.shape[1]:
            raise UserError(
                f"must be a list of columns, one for each of the labels {', '.join(labels)}"
            )
        return self if self.labels else replace(self, labels=tuple(names))

    def encode(self, values: np.ndarray) -> Tensor:
        numbers = torch.from_numpy(to_numbers(values)).float()
        wrong = ~(numbers.isnan() | (numbers == 0) | (numbers == 1))
        if wrong.any():
            row, label = wrong.nonzero()[0].tolist()
            number = numbers[row, label].item()
            raise BadLabel(
                row, f"holds {number:g} for '{self.labels[label]}' where 0 or 1 is expected"
            )
        return numbers

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def out_features(self) -> int:
        return len(self.labels)

    @property
    def output_names(self) -> tuple[Hashable, ...]:
        return self.labels

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return binary_losses(outputs, targets, self.pos_weight)

    def distil(
        self, outputs: Tensor, taught: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        return compare_probabilities(outputs, taught, temperature)

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        return MetricCollection(
            {"scores": Scores(self.out_features), "count": LabelCount(2, self.out_features)},
            compute_groups=False,
        )

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        classes = to_integers(targets).flatten(0, -2)
        counts = torch.stack([(classes == 0).sum(0), (classes == 1).sum(0)])
        return {"preds": probabilities(outputs).flatten(0, -2), "target": classes, "counts": counts}

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        # one weight for all labels of a row
        return {"weights": expand_weights(weights, targets[..., 0]).flatten()}

    def find_undefined(self, counts: Tensor) -> set[str]:
        if not counts.any():
            return set(self.metric_names)
        return set() if counts.all(0).any() else {"auroc", "average_precision"}

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        # a kind with metrics of its own may have built none of ours
        if "scores" not in computed:
            return computed
        return compute_decision_metrics(computed["scores"], self.decision_thresholds) | computed

    def compute(self, metrics: MetricCollection) -> dict[str, Tensor]:
        counts = metrics["count"].compute().sum(0)
        if "scores" in metrics:
            counts = weigh_labels(metrics["scores"].compute())
        values = self.compute_values(metrics)
        # over all known labels: some columns have more of them than others
        if "accuracy" in values and values["accuracy"].ndim:
            right = (values["accuracy"].nan_to_num(0) * counts).sum()
            values["accuracy"] = right / counts.sum()
        return {name: self.reduce_value(value, counts) for name, value in values.items()}

    def compute_per_output(self, metrics: MetricCollection) -> dict[str, Tensor]:
        if not self.per_label:
            return {}
        none = torch.full((self.out_features,), float("nan"))
        together = [m.name for m in self.added_metrics if self._sees_all_labels(m)]
        values = {}
        for metric, value in self.compute_values(metrics).items():
            if metric in together:
                continue
            for label, number in zip(self.labels, value if value.ndim else none, strict=True):
                values[f"{metric}/{label}"] = number
        return values

    # -- metrics that settings add -----------------------------------------------------------------
    def metric_settings(self, output: int = 0) -> dict[str, object]:
        return {"task": "binary", "threshold": self.decision_thresholds[output]}

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        labels = torch.arange(32)[:, None] // (torch.arange(self.out_features) % 4 + 1) % 2
        return example_probabilities(32, self.out_features), labels

    def settings_of(self, metric: AddedMetric) -> dict[str, object]:
        if not self._sees_all_labels(metric):
            return super().settings_of(metric)
        return {"task": "multilabel", "num_labels": self.out_features, "ignore_index": MISSING}

    def compute_added_metric(self, metric: AddedMetric, preds: Tensor, target: Tensor) -> Tensor:
        if not self._sees_all_labels(metric):
            return super().compute_added_metric(metric, preds, target)
        # one threshold is all that such a metric takes, and each label has its own
        if metric.takes("threshold") and "threshold" not in metric.settings:
            preds = (preds > preds.new_tensor(self.decision_thresholds)).to(preds)
        known = is_labelled(target)
        rows = known.any(1) if metric.takes("ignore_index") else known.all(1)
        return metric.value(self.settings_of(metric), preds[rows], target[rows])

    def try_added_metric(self, metric: AddedMetric, preds: Tensor, target: Tensor) -> None:
        if not self._sees_all_labels(metric):
            return super().try_added_metric(metric, preds, target)
        return metric.refuse_unfit(type(self).__name__, self.settings_of(metric), preds, target)

    def _sees_all_labels(self, metric: AddedMetric) -> bool:
        """Whether a metric is given all labels at once, and not one of them after the other."""
        if not metric.takes("num_labels"):
            return False
        return "average" in metric.settings or not metric.builds(self.metric_settings())

    # -- thresholds --------------------------------------------------------------------------------
    @property
    def decision_thresholds(self) -> tuple[float, ...]:
        """The thresholds that decide, one per label: 0.5 until they are set or chosen."""
        return self.thresholds or (MIDDLE,) * self.out_features

    def choose(self, metrics: MetricCollection) -> Self:
        if self.thresholds is not None or "scores" not in metrics:
            return self
        return replace(self, thresholds=find_best_thresholds(metrics["scores"].compute()))

    def describe_choice(self, name: str, most: int = 8) -> str:
        thresholds = zip(self.labels, self.decision_thresholds, strict=True)
        shown = [f"{label} {threshold:.4g}" for label, threshold in thresholds]
        more = f" and {len(shown) - most} more" if len(shown) > most else ""
        return f"thresholds of {name}: {', '.join(shown[:most])}{more}"

    # -- people ------------------------------------------------------------------------------------
    def predict(self, outputs: Tensor) -> Tensor:
        """Turns outputs (..., L) into decisions (..., L): true above the threshold."""
        scores = probabilities(outputs)
        return scores > scores.new_tensor(self.decision_thresholds)

    def mix(self, outputs_M: Tensor) -> Tensor:
        return mix_logits(outputs_M)

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        return name_spread(probabilities(outputs_M), self.labels)

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for name, column in zip(self.labels, targets.unbind(-1), strict=True):
            labels = pair_with_known(column)
            columns[name] = [int(label) if known else None for label, known in labels]
        return columns

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        yes = self.predict(outputs).int()
        scores = probabilities(outputs)
        guess = {name: yes[:, i].tolist() for i, name in enumerate(self.labels)}
        return guess | {f"p_{name}": scores[:, i].tolist() for i, name in enumerate(self.labels)}
