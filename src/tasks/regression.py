"""One or several numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection

from src.errors import UserError
from src.tasks.task import LabelCount, Task, as_numbers, constant, in_words, labelled, pairs


class R2(Metric):
    """Coefficient of determination per output, 1 - sum (y - p)^2 / sum (y - mean y)^2, with missing elements left out.

    Fed with standardised values, whose sums of squares lose no digits, unlike those of years or
    prices in fp32.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(4, outputs, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, standard_preds: Tensor, standard_target: Tensor) -> None:
        """Adds a batch of (B, L) predictions and targets; NaN targets do not count."""
        mask = labelled(standard_target)
        y = standard_target.where(mask, 0).double()
        squares = (standard_preds.double() - y).square() * mask
        self.sums += torch.stack([mask.double(), y, y.square(), squares]).sum(1)

    def compute(self) -> Tensor:
        """Returns R2 per output, NaN where fewer than two distinct targets were seen."""
        count, y, squares, errors = self.sums
        variation = squares - y.square() / count
        return torch.where(variation > 1e-12 * squares, 1 - errors / variation, float("nan"))


BOUNDED = ("mae", "rmse", "r2")
LEAST = -1.0


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """Squared, absolute or Huber error on standardised targets: targets (...) or (..., L) with NaN for missing, outputs (..., L).

    The model sees (y - mean) / std; MAE and RMSE are reported in the label's own unit, R2 is the
    mean over outputs.

    What counts for model selection is bounded below: R2, or 1 - error / std for MAE and RMSE, is at
    least -1 there, for each output of a vector. R2 is unbounded, and one task of few rows at -100
    would choose the epoch for all the others.

    A kind whose outputs are parameters of a distribution overrides ``out_features``, ``losses`` and
    ``predicted``, and sets ``likelihood = "categorical"`` where its loss is a negative log
    likelihood as it is: a squared error is twice one.

    Attributes:
        loss: mse, (o - y)^2; mae, |o - y|; huber, quadratic within ``delta`` standard deviations
            and linear beyond.
        delta: Where Huber's loss turns linear, in standard deviations.
        names: Names of the outputs of a vector; a scalar has none.
        mean: Mean per output over the training labels; learnt when None.
        std: Standard deviation per output likewise.
    """

    not_in_loss: ClassVar[tuple[str, ...]] = ("names", "mean", "std")
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
            if values is not None and (
                not isinstance(values, tuple) or (self.names and len(values) != len(self.names))
            ):
                raise UserError(
                    f"Regression: {key} {values} where a list of {self.values_per_label} is expected"
                )
        if self.std is not None and not all(std > 0 for std in self.std):
            raise UserError(f"Regression: std {self.std} must be above 0")

    @property
    def event_dims(self) -> int:  # type: ignore[override]  # a vector has one, a scalar none
        return 1 if self.names else 0

    @property
    def likelihood(self) -> str:  # type: ignore[override]  # it depends on the loss
        return "laplace" if self.loss == "mae" else "gaussian"

    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        numbers = as_numbers(values).reshape(len(values), -1)
        for name, column in zip(self.names or names, numbers.T, strict=False):
            found = column[~np.isnan(column)]
            if not len(found) and None in (self.mean, self.std):
                raise UserError(f"has no label for '{name}' in the training split")
            if (
                self.std is None and found.min() == found.max()
            ):  # its std may be rounding dust instead of 0
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
        return torch.from_numpy((as_numbers(values) - mean) / std).float()

    @property
    def values_per_label(self) -> int:
        """How many numbers a label has."""
        return len(self.names) or 1

    @property
    def out_features(self) -> int:
        return self.values_per_label

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mask = labelled(targets)
        outputs, targets = outputs if self.names else outputs.squeeze(-1), targets.where(mask, 0)
        match self.loss:
            case "mse":
                losses = F.mse_loss(outputs, targets, reduction="none")
            case "mae":
                losses = F.l1_loss(outputs, targets, reduction="none")
            case "huber":
                losses = F.huber_loss(outputs, targets, reduction="none", delta=self.delta)
        return losses * mask

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "mae": MeanAbsoluteError(),
                "rmse": MeanSquaredError(squared=False),
                "r2": R2(self.values_per_label),
                "count": LabelCount(self.values_per_label),
            },
            compute_groups=False,
        )

    def predicted(self, outputs: Tensor) -> Tensor:
        """Outputs (..., O) as standardised predictions (..., L): the same, unless the outputs are parameters of a distribution."""
        return outputs

    def measured(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        outputs = self.predicted(outputs).reshape(-1, self.values_per_label)
        targets = targets.reshape(-1, self.values_per_label)
        mask = labelled(targets)
        return {
            "preds": self.in_units(outputs.double())[
                mask
            ],  # fp32 has no digits left for the error of a price near 1e9
            "target": self.in_units(targets.double())[mask],
            "standard_preds": outputs,
            "standard_target": targets,
            "counts": mask.sum(0),
        }

    def in_units(self, standardised: Tensor) -> Tensor:
        """Standardised values (..., O) in the label's own unit."""
        assert self.mean is not None and self.std is not None, "fit first"
        where = (standardised.device, standardised.dtype)
        return standardised * constant(self.std, where) + constant(self.mean, where)

    def undefined(self, counts: Tensor) -> set[str]:
        return set() if counts.any() else set(self.metric_names)

    def score(self, values: Mapping[str, Tensor | float]) -> float:
        """R2; MAE and RMSE as the share of the training labels' spread that is explained, 1 - error / std; at least -1."""
        assert self.std is not None, "fit first"
        if self.monitor not in BOUNDED:  # a metric of a kind of its own
            return super().score(values)
        value = float(values[self.monitor])
        skill = value if self.monitor == "r2" else 1 - value / float(np.mean(self.std))
        return LEAST if skill < LEAST else skill  # NaN stays NaN

    def in_score(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """R2 of each output is bounded by itself, before the mean."""
        if self.monitor != "r2" or not self.names or not isinstance(metrics["r2"], R2):
            return {}
        return {"r2": metrics["r2"].compute().clamp(min=LEAST).nanmean()}

    def score_in_words(self) -> str:
        if self.monitor not in BOUNDED:
            return super().score_in_words()
        skill = "R2" if self.monitor == "r2" else f"1 - {in_words(self.monitor)} / std"
        return f"{skill}, at least {LEAST:g}"

    def readable(self, targets: Tensor) -> dict[str, Any]:
        values = self.in_units(targets.double().reshape(len(targets), -1))
        columns = zip(self.names or ("",), values.unbind(-1), strict=True)
        return {
            name: [number if known else None for number, known in pairs(column)]
            for name, column in columns
        }

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        values = self.in_units(self.predicted(outputs))
        if not self.names:
            return {"": values.squeeze(-1).tolist()}
        return {name: values[:, i].tolist() for i, name in enumerate(self.names)}
