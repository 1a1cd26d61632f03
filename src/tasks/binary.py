"""One of two classes."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.decisions import MIDDLE, Scores, compute_decision_metrics, find_best_thresholds
from src.tasks.distilling import compare_probabilities
from src.tasks.ensembling import mix_logits, name_spread
from src.tasks.label_count import LabelCount
from src.tasks.labels import (
    MISSING,
    Label,
    find_classes,
    find_positions,
    is_labelled,
    pair_with_known,
    to_integers,
)
from src.tasks.task import Task, make_constant
from src.tasks.weighted_metrics import expand_weights


@dataclass(frozen=True, kw_only=True)
class BinaryClassification(Task):
    """Binary cross-entropy on one logit: targets (...) of 0, 1 or NaN, outputs (..., 1).

    Attributes:
        classes: Names of the negative and the positive class; learnt from the training labels when
            empty (the later one in order, such as 1, True, 'yes', '>50K', is positive).
        pos_weight: Factor on the loss of positive elements.
        threshold: The probability above which a row counts as positive, in accuracy, F1,
            predictions and confusion matrices alike. When None each validation chooses the one with
            the highest F1 on its rows, and the checkpoint keeps it. So F1 of validation is at the
            threshold that its own rows chose, and flatters; F1 of the test does not. For accuracy
            at the usual threshold set 0.5. AUROC and average precision need none.
        depends_on: A binary task without whose positive label this one has none: p(this task) =
            p(that task) p(this task | that task), see :mod:`src.tasks.dependence`.
        entire_space: Whether to model that product over all rows; ``depends_on`` needs it.
    """

    label_forms: ClassVar[tuple[str, ...]] = ("class",)
    not_in_loss: ClassVar[tuple[str, ...]] = ("classes", "threshold", "depends_on", "entire_space")
    set_by_validation: ClassVar[tuple[str, ...]] = ("threshold",)
    metric_names: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "auroc", "average_precision")

    classes: tuple[Label, ...] = ()
    pos_weight: float = 1.0
    threshold: float | None = None
    depends_on: str | None = None
    entire_space: bool = False
    monitor: str = "auroc"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.classes) not in (0, 2):
            raise UserError(
                f"BinaryClassification: {len(self.classes)} classes where 2 are expected, the "
                "negative one first"
            )
        if self.pos_weight <= 0:
            raise UserError(f"BinaryClassification: pos_weight {self.pos_weight} must be above 0")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise UserError(
                f"BinaryClassification: threshold {self.threshold} is a probability, from 0 to "
                "below 1"
            )
        if (self.depends_on is not None) != self.entire_space:
            raise UserError(
                "BinaryClassification: depends_on names a task, and entire_space true says that "
                "its probability is a factor: set both, or where, to count only its positive rows"
            )

    # -- labels ------------------------------------------------------------------------------------
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        if values.ndim > 1:
            raise UserError(f"has {values.shape[1]} columns, where a BinaryClassification has one")
        if self.classes:
            return self
        found = find_classes(values)
        if len(found) != 2:
            raise UserError(
                f"has {len(found)} values in the training split, where a binary task has 2"
            )
        return replace(self, classes=found)

    def encode(self, values: np.ndarray) -> Tensor:
        positions = torch.from_numpy(find_positions(self.classes, values))
        return torch.where(positions == MISSING, float("nan"), positions.float())

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def out_features(self) -> int:
        return 1

    @property
    def output_names(self) -> tuple[Hashable, ...]:
        condition = f" where {self.depends_on}" if self.entire_space else ""
        return (f"{self.classes[1]}, not {self.classes[0]}{condition}",)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return binary_losses(outputs.squeeze(-1), targets, self.pos_weight)

    def distil(
        self, outputs: Tensor, taught: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        return compare_probabilities(outputs, taught, temperature).squeeze(-1)

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        return MetricCollection({"scores": Scores(1), "count": LabelCount(2)}, compute_groups=False)

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        classes = to_integers(targets).flatten()
        counts = torch.bincount(classes[is_labelled(classes)], minlength=2)
        return {"preds": probabilities(outputs).flatten(), "target": classes, "counts": counts}

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        return {"weights": expand_weights(weights, targets).flatten()}

    def find_undefined(self, counts: Tensor) -> set[str]:
        if not counts.any():
            return set(self.metric_names)
        return set() if counts.all() else {"auroc", "average_precision"}

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        # a kind with metrics of its own may have built none of ours
        if "scores" not in computed:
            return computed
        return compute_decision_metrics(computed["scores"], [self.decision_threshold]) | computed

    def metric_settings(self, output: int = 0) -> dict[str, object]:
        return {"task": "binary", "threshold": self.decision_threshold}

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        return example_probabilities(32), torch.arange(32) % 2

    # -- the threshold -----------------------------------------------------------------------------
    @property
    def decision_threshold(self) -> float:
        """The threshold that decides: 0.5 until one is set or chosen."""
        return MIDDLE if self.threshold is None else self.threshold

    def choose(self, metrics: MetricCollection) -> Self:
        if self.threshold is not None or "scores" not in metrics:
            return self
        (threshold,) = find_best_thresholds(metrics["scores"].compute())
        return replace(self, threshold=threshold)

    def describe_choice(self, name: str) -> str:
        return f"threshold of {name}: {self.decision_threshold:.4g}"

    # -- people ------------------------------------------------------------------------------------
    def predict(self, outputs: Tensor) -> Tensor:
        """Turns outputs (..., 1) into decisions (...): true above the threshold."""
        return probabilities(outputs.squeeze(-1)) > self.decision_threshold

    def mix(self, outputs_M: Tensor) -> Tensor:
        return mix_logits(outputs_M)

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        return name_spread(probabilities(outputs_M), ())

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        labels = pair_with_known(targets)
        return {"": [self.classes[int(label)] if known else None for label, known in labels]}

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        guess = [self.classes[int(yes)] for yes in self.predict(outputs).tolist()]
        return {"": guess, f"p_{self.classes[1]}": probabilities(outputs.squeeze(-1)).tolist()}


def probabilities(logits: Tensor) -> Tensor:
    """Returns probabilities, which metrics see in place of logits.

    torchmetrics takes a batch of logits that are all in [0, 1] for probabilities. They are fp64,
    since in fp32 all logits above 17 are the same probability, and ranking metrics need their
    order.
    """
    return logits.double().sigmoid()


def example_probabilities(*shape: int) -> Tensor:
    """Returns fp64 probabilities, always the same, to try metrics on."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def binary_losses(logits: Tensor, targets: Tensor, pos_weight: float | tuple[float, ...]) -> Tensor:
    """Returns binary cross-entropy per element, 0 where the target is NaN."""
    mask = is_labelled(targets)
    weight = None
    if pos_weight != 1.0:
        weight = make_constant(pos_weight, (logits.device, logits.dtype))
    losses = F.binary_cross_entropy_with_logits(
        logits, targets.where(mask, 0), pos_weight=weight, reduction="none"
    )
    return losses * mask
