"""One or several numbers."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.ensembling import name_spread
from src.tasks.label_count import LabelCount
from src.tasks.labels import is_labelled, pair_with_known, to_numbers
from src.tasks.metric_classes import spell_metric
from src.tasks.r2 import R2
from src.tasks.task import Task, make_constant
from src.tasks.weighted_metrics import MeanError, expand_weights

BOUNDED = ("mae", "rmse", "r2")
LEAST = -1.0


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """Squared, absolute or Huber error on standardised targets.

    Targets are (...) or (..., L) with NaN for missing, outputs (..., L). The model sees
    (y - mean) / std; MAE and RMSE are reported in the label's own unit, R2 is the mean over
    outputs. Metrics that ``metrics`` adds see the label's own unit, too; of a vector each output
    is measured by itself, and the task has the mean.

    The value that counts for model selection is bounded below: R2, or 1 - error / std for MAE and
    RMSE, is at least -1 there, for each output of a vector. R2 is unbounded, and one task of few
    rows at -100 would choose the epoch for all the others.

    A kind whose outputs are parameters of a distribution overrides ``out_features``, ``losses`` and
    ``predict``, and sets ``likelihood = "categorical"`` where its loss is a negative log likelihood
    as it is: a squared error is twice one.

    Attributes:
        loss: mse, (o - y)^2; mae, |o - y|; huber, quadratic within ``delta`` standard deviations
            and linear beyond.
        delta: Where Huber's loss turns linear, in standard deviations.
        names: Names of the outputs of a vector; a scalar has none.
        mean: Mean per output over the training labels; learnt when None.
        std: Standard deviation per output over the training labels; learnt when None.
    """

    not_in_loss: ClassVar[tuple[str, ...]] = ("names", "mean", "std")
    scale_fields: ClassVar[tuple[str, ...]] = ("mean", "std")
    minimised: ClassVar[tuple[str, ...]] = ("mae", "rmse")
    metric_names: ClassVar[tuple[str, ...]] = ("mae", "rmse", "r2")

    loss: Literal["mse", "mae", "huber"] = "mse"
    delta: float = 1.0
    names: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    monitor: str = "r2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in ("mse", "mae", "huber"):
            raise UserError(f"Regression: loss '{self.loss}' is none of mse, mae, huber")
        if self.delta <= 0:
            raise UserError(f"Regression: delta {self.delta} must be above 0")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if values is None:
                continue
            wrong_length = self.names and len(values) != len(self.names)
            if not isinstance(values, tuple) or wrong_length:
                raise UserError(
                    f"Regression: {key} {values} where a list of {self.values_per_label} is "
                    "expected"
                )
        if self.std is not None and not all(std > 0 for std in self.std):
            raise UserError(f"Regression: std {self.std} must be above 0")

    @property
    def event_dims(self) -> int:  # type: ignore[override]  # a vector has one, a scalar none
        return 1 if self.names else 0

    @property
    def likelihood(self) -> str:  # type: ignore[override]  # it depends on the loss
        return "laplace" if self.loss == "mae" else "gaussian"

    # -- labels ------------------------------------------------------------------------------------
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        numbers = to_numbers(values).reshape(len(values), -1)
        for name, column in zip(self.names or names, numbers.T, strict=False):
            found = column[~np.isnan(column)]
            if not len(found) and None in (self.mean, self.std):
                raise UserError(f"has no label for '{name}' in the training split")
            # the std of a single value may be rounding dust instead of 0
            if self.std is None and found.min() == found.max():
                raise UserError(
                    "has a single value in the training split; there is nothing to learn"
                )
        return replace(
            self,
            names=self.names or (tuple(names) if values.ndim > 1 else ()),
            mean=self.mean or tuple(np.nanmean(numbers, axis=0).tolist()),
            std=self.std or tuple(np.nanstd(numbers, axis=0).tolist()),
        )

    def encode(self, values: np.ndarray) -> Tensor:
        assert self.mean is not None and self.std is not None, "fit first"
        mean, std = (np.asarray(v) if self.names else v[0] for v in (self.mean, self.std))
        return torch.from_numpy((to_numbers(values) - mean) / std).float()

    def in_units(self, standardised: Tensor) -> Tensor:
        """Turns standardised values (..., O) into the label's own unit."""
        assert self.mean is not None and self.std is not None, "fit first"
        where = (standardised.device, standardised.dtype)
        return standardised * make_constant(self.std, where) + make_constant(self.mean, where)

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def values_per_label(self) -> int:
        """The number of values that one label has."""
        return len(self.names) or 1

    @property
    def out_features(self) -> int:
        return self.values_per_label

    @property
    def output_names(self) -> tuple[Hashable, ...]:
        return self.names or ("",)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mask = is_labelled(targets)
        outputs = outputs if self.names else outputs.squeeze(-1)
        targets = targets.where(mask, 0)
        match self.loss:
            case "mse":
                losses = F.mse_loss(outputs, targets, reduction="none")
            case "mae":
                losses = F.l1_loss(outputs, targets, reduction="none")
            case "huber":
                losses = F.huber_loss(outputs, targets, reduction="none", delta=self.delta)
        return losses * mask

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "mae": MeanError(1),
                "rmse": MeanError(2),
                "r2": R2(self.values_per_label),
                "count": LabelCount(self.values_per_label),
            },
            compute_groups=False,
        )

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        outputs = self.predict(outputs).reshape(-1, self.values_per_label)
        targets = targets.reshape(-1, self.values_per_label)
        mask = is_labelled(targets)
        return {
            # fp32 has no digits left for the error of a price near 1e9
            "preds": self.in_units(outputs.double())[mask],
            "target": self.in_units(targets.double())[mask],
            "standard_preds": outputs,
            "standard_target": targets,
            "counts": mask.sum(0),
        }

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        own = expand_weights(weights, targets).reshape(-1, self.values_per_label)
        mask = is_labelled(targets).reshape(own.shape)
        return {"weights": own[mask], "standard_weights": own}

    def find_undefined(self, counts: Tensor) -> set[str]:
        return set() if counts.any() else set(self.metric_names)

    def collect_rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns predictions and labels in the label's own unit: (N,), or (N, L) of a vector."""
        rows = self.predict(outputs).reshape(-1, self.values_per_label)
        labels = targets.reshape(-1, self.values_per_label)
        preds = self.in_units(rows.double())
        target = self.in_units(labels.double())
        return (preds, target) if self.names else (preds.squeeze(-1), target.squeeze(-1))

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        # above 0, where each of torchmetrics' regression metrics is defined
        shape = (32, len(self.names)) if self.names else (32,)
        rows = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).double() + 0.5
        return rows[0], rows[1]

    # -- model selection ---------------------------------------------------------------------------
    def score(self, values: Mapping[str, Tensor | float]) -> float:
        """Returns R2, or 1 - error / std for MAE and RMSE, the share of the spread explained.

        The spread is the one of the training labels. The score is at least -1.
        """
        if self.monitor not in BOUNDED:
            return super().score(values)
        assert self.std is not None, "fit first"
        value = float(values[self.monitor])
        skill = value if self.monitor == "r2" else 1 - value / float(np.mean(self.std))
        return LEAST if skill < LEAST else skill  # NaN stays NaN

    def bound_for_score(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """Returns R2 with each output bounded by itself, before the mean."""
        if self.monitor != "r2" or not self.names or not isinstance(metrics["r2"], R2):
            return {}
        return {"r2": metrics["r2"].compute().clamp(min=LEAST).nanmean()}

    def describe_score(self) -> str:
        if self.monitor not in BOUNDED:
            return super().describe_score()
        skill = "R2" if self.monitor == "r2" else f"1 - {spell_metric(self.monitor)} / std"
        return f"{skill}, at least {LEAST:g}"

    # -- people ------------------------------------------------------------------------------------
    def predict(self, outputs: Tensor) -> Tensor:
        """Turns outputs (..., O) into standardised predictions (..., L).

        They are the outputs, unless these are parameters of a distribution.
        """
        return outputs

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        return name_spread(self.in_units(self.predict(outputs_M.double())), self.names)

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        values = self.in_units(targets.double().reshape(len(targets), -1))
        columns: dict[str, Any] = {}
        for name, column in zip(self.names or ("",), values.unbind(-1), strict=True):
            labels = pair_with_known(column)
            columns[name] = [number if known else None for number, known in labels]
        return columns

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        values = self.in_units(self.predict(outputs))
        if not self.names:
            return {"": values.squeeze(-1).tolist()}
        return {name: values[:, i].tolist() for i, name in enumerate(self.names)}
