"""One of several classes."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.distilling import compare_classes
from src.tasks.ensembling import mix_log_probabilities, name_spread
from src.tasks.label_count import LabelCount
from src.tasks.labels import (
    MISSING,
    Label,
    find_classes,
    find_positions,
    is_labelled,
    pair_with_known,
)
from src.tasks.task import Task, make_constant
from src.tasks.weighted_metrics import ClassMetric, expand_weights


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Cross-entropy over C classes: targets (...) of class positions, outputs (..., C) of logits.

    With class weights w the element loss is -w_y log p_y, and the mean is over labelled elements,
    not over their weights, so that it does not depend on which device has which rows. Label
    smoothing: Szegedy et al., CVPR 2016.

    F1 is the mean over the classes that have a label or a prediction, balanced accuracy the mean
    recall over the classes that have a label. A kind with other outputs, such as an ordinal one,
    overrides ``out_features``, ``losses`` and ``predict``: metrics and figures follow.

    Attributes:
        classes: Class names in the order of the outputs; learnt from the training labels when
            empty.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        class_weights: One weight per class, or none.
    """

    label_forms: ClassVar[tuple[str, ...]] = ("class",)
    not_in_loss: ClassVar[tuple[str, ...]] = ("classes",)
    metric_names: ClassVar[tuple[str, ...]] = ("accuracy", "balanced_accuracy", "f1")

    classes: tuple[Label, ...] = ()
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    monitor: str = "accuracy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise UserError(
                f"Classification: label_smoothing {self.label_smoothing} is outside [0, 1)"
            )
        if self.class_weights and self.classes and len(self.class_weights) != len(self.classes):
            raise UserError(
                f"Classification: {len(self.class_weights)} class_weights for "
                f"{len(self.classes)} classes"
            )
        if self.class_weights and min(self.class_weights) < 0:
            raise UserError(
                f"Classification: class_weights hold {min(self.class_weights)}; weights start at 0"
            )

    # -- labels ------------------------------------------------------------------------------------
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        if values.ndim > 1:
            raise UserError(f"has {values.shape[1]} columns, where a Classification has one")
        return self if self.classes else replace(self, classes=find_classes(values))

    def encode(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(find_positions(self.classes, values))

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def out_features(self) -> int:
        return len(self.classes)

    @property
    def output_names(self) -> tuple[Hashable, ...]:
        return self.classes

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        weights = None
        if self.class_weights:
            weights = make_constant(self.class_weights, (outputs.device, outputs.dtype))
        return F.cross_entropy(
            outputs.flatten(0, -2),
            targets.flatten(),
            weight=weights,
            ignore_index=MISSING,
            reduction="none",
            label_smoothing=self.label_smoothing,
        ).view_as(targets)

    def distil(
        self, outputs: Tensor, taught: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        if not self._has_probabilities:
            return super().distil(outputs, taught, targets, temperature)
        return compare_classes(outputs, taught, temperature)

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        classes = len(self.classes)
        return MetricCollection(
            {
                "accuracy": ClassMetric(classes, "accuracy"),
                "balanced_accuracy": ClassMetric(classes, "recall"),
                "f1": ClassMetric(classes, "f1"),
                "count": LabelCount(classes),
            },
            # one state, which is updated once
            compute_groups=[["accuracy", "balanced_accuracy", "f1"], ["count"]],
        )

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        targets = targets.flatten()
        counts = torch.bincount(targets[is_labelled(targets)], minlength=len(self.classes))
        return {"preds": self.predict(outputs).flatten(), "target": targets, "counts": counts}

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        return {"weights": expand_weights(weights, targets).flatten()}

    def find_undefined(self, counts: Tensor) -> set[str]:
        return set() if counts.any() else set(self.metric_names)

    def metric_settings(self, output: int = 0) -> dict[str, object]:
        return {"task": "multiclass", "num_classes": len(self.classes), "average": "macro"}

    def collect_rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns probabilities (N, C), or predictions (N,) where there are none; labels (N,)."""
        if self._predicts_by_probability:
            return outputs.softmax(-1).flatten(0, -2), targets.flatten()
        return self.predict(outputs).flatten(), targets.flatten()

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        classes = len(self.classes)
        labels = torch.arange(8 * classes) % classes
        if not self._predicts_by_probability:
            return labels.flip(0), labels
        noise = torch.randn(len(labels), classes, generator=torch.Generator().manual_seed(0))
        return noise.softmax(-1), labels

    # -- people ------------------------------------------------------------------------------------
    def predict(self, outputs: Tensor) -> Tensor:
        """Turns outputs (..., O) into positions in ``classes`` (...)."""
        return outputs.argmax(-1)

    @property
    def _has_probabilities(self) -> bool:
        """Whether the softmax of the outputs has a probability for each class."""
        return self.out_features == len(self.classes)

    @property
    def _predicts_by_probability(self) -> bool:
        return self._has_probabilities and type(self).predict is Classification.predict

    def mix(self, outputs_M: Tensor) -> Tensor:
        if not self._has_probabilities:
            return super().mix(outputs_M)
        return mix_log_probabilities(outputs_M)

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        """Returns that of the probability of the class that is predicted."""
        if not self._predicts_by_probability:
            return super().measure_spread(outputs_M, mixed)
        classes = self.predict(mixed)[..., None].expand(*outputs_M.shape[:-1], 1)
        return name_spread(outputs_M.double().softmax(-1).gather(-1, classes), ())

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        labels = pair_with_known(targets)
        return {"": [self.classes[label] if known else None for label, known in labels]}

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        decoded: dict[str, Any] = {"": [self.classes[i] for i in self.predict(outputs).tolist()]}
        if not self._has_probabilities:
            return decoded
        probabilities = outputs.softmax(-1)
        for i, name in enumerate(self.classes):
            decoded[f"p_{name}"] = probabilities[:, i].tolist()
        return decoded
