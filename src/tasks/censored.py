"""A number that is known exactly, or to be above or below a bound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.bounds import split_bounds, write_bound
from src.tasks.ensembling import name_spread
from src.tasks.label_count import LabelCount
from src.tasks.labels import is_labelled
from src.tasks.metric_classes import spell_metric
from src.tasks.standardised import LEAST, Standardised, at_least, needs_one_column
from src.tasks.sums import Sums, spread_weights
from src.tasks.task import Task

ERRORS = ("mae", "rmse", "r2")


@dataclass(frozen=True, kw_only=True)
class CensoredRegression(Standardised, Task):
    """Regression on labels such as 12.5, >10 and <0.1: outputs (..., 1).

    Where a label is a bound, a prediction on its right side has no loss and no gradient, and
    another one the loss of its distance to the bound, as the bounded losses of chemprop have it
    (Heid et al., "Chemprop", J. Chem. Inf. Model. 2024). With o the prediction and y the number of
    the label, the error is e = max(y - o, 0) for >y, max(o - y, 0) for <y, and o - y for y.

    Labels are two numbers, targets (..., 2): the number, (y - mean) / std, and the sign of its
    bound: 1 for >, -1 for <, 0 for none. Both have the loss of the label. The mean and the standard
    deviation are those of all numbers, bounds among them: where bounds are far from all that was
    measured, their losses would swamp the others otherwise.

    Metrics: ``mae``, ``rmse`` and ``r2`` of the labels that are no bounds, in the label's own unit;
    ``right_side``, the share of bounds that the prediction meets. Metrics that ``metrics`` adds see
    labels that are no bounds. The value for model selection is bounded as that of Regression.

    Attributes:
        loss: mse, e^2; mae, |e|; huber, quadratic within ``delta`` standard deviations and linear
            beyond.
        delta: Where Huber's loss turns linear, in standard deviations.
    """

    label_forms: ClassVar[tuple[str, ...]] = ("bound",)
    not_in_loss: ClassVar[tuple[str, ...]] = ("mean", "std")
    scale_fields: ClassVar[tuple[str, ...]] = ("mean", "std")
    event_dims: ClassVar[int] = 1
    metric_names: ClassVar[tuple[str, ...]] = (*ERRORS, "right_side")
    minimised: ClassVar[tuple[str, ...]] = ("mae", "rmse")

    loss: Literal["mse", "mae", "huber"] = "mse"
    delta: float = 1.0
    monitor: str = "r2"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_scale()
        if self.loss not in ("mse", "mae", "huber"):
            raise UserError(f"CensoredRegression: loss '{self.loss}' is none of mse, mae, huber")
        if self.delta <= 0:
            raise UserError(f"CensoredRegression: delta {self.delta} must be above 0")

    @property
    def likelihood(self) -> str:  # type: ignore[override]  # it depends on the loss
        return "laplace" if self.loss == "mae" else "gaussian"

    @property
    def values_per_label(self) -> int:
        return 2

    # -- labels ------------------------------------------------------------------------------------
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        needs_one_column(values, "CensoredRegression")
        return self.fit_scale(split_bounds(values)[0])

    def encode(self, values: np.ndarray) -> Tensor:
        needs_one_column(values, "CensoredRegression")
        numbers, signs = split_bounds(values)
        return torch.from_numpy(np.stack([self.standardise(numbers), signs], -1)).float()

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def out_features(self) -> int:
        return 1

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mask = is_labelled(targets)
        y, sign = targets.where(mask, 0).unbind(-1)
        predicted = outputs.squeeze(-1)
        # beyond its bound a prediction is right
        right = sign * (predicted - y) > 0
        predicted = torch.where(right, y, predicted)
        match self.loss:
            case "mse":
                losses = F.mse_loss(predicted, y, reduction="none")
            case "mae":
                losses = F.l1_loss(predicted, y, reduction="none")
            case "huber":
                losses = F.huber_loss(predicted, y, reduction="none", delta=self.delta)
        return losses.unsqueeze(-1) * mask

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        return MetricCollection({"sums": Sums(7), "count": LabelCount(2)}, compute_groups=False)

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        predicted = outputs.double().flatten()
        y, sign = targets.double().flatten(0, -2).nan_to_num(0.0).unbind(-1)
        known = is_labelled(targets)[..., 0].flatten()
        exact = known & (sign == 0)
        bound = known & (sign != 0)
        error = predicted - y
        one = torch.ones_like(y)
        of_numbers = torch.stack([one, y, y.square(), error.abs(), error.square()], -1)
        of_bounds = torch.stack([one, (sign * error >= 0).double()], -1)
        parts = [of_numbers.where(exact[:, None], 0), of_bounds.where(bound[:, None], 0)]
        counts = torch.stack([exact.sum(), bound.sum()])
        return {"statistics": torch.cat(parts, -1), "counts": counts}

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        return {"row_weights": spread_weights(weights, targets[..., 0])}

    def find_undefined(self, counts: Tensor) -> set[str]:
        exact, bounds = counts.tolist()
        undefined = set() if exact else set(ERRORS)
        return undefined if bounds else undefined | {"right_side"}

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        if "sums" not in computed:
            return computed
        assert self.std is not None, "fit first"
        number, y, squares, errors, squared, bounds, right = computed["sums"]
        variation = squares - y.square() / number
        # a variation below rounding is the one of a single value
        r2 = torch.where(variation > 1e-12 * squares, 1 - squared / variation, float("nan"))
        found = {
            "mae": errors / number * self.std,
            "rmse": (squared / number).sqrt() * self.std,
            "r2": r2,
            "right_side": right / bounds,
        }
        return found | computed

    def collect_rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns predictions and labels in the label's own unit, (N,); bounds count as missing."""
        y, sign = targets.flatten(0, -2).unbind(-1)
        return self.in_units(outputs.flatten()), self.in_units(y.where(sign == 0, float("nan")))

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        # above 0, where each of torchmetrics' regression metrics is defined
        rows = torch.rand(2, 32, generator=torch.Generator().manual_seed(0)).double() + 0.5
        return rows[0], rows[1]

    # -- model selection ---------------------------------------------------------------------------
    def score(self, values: Mapping[str, Tensor | float]) -> float:
        """Returns R2, or 1 - error / std for MAE and RMSE, at least -1; or the share of bounds."""
        if self.monitor == "r2":
            return at_least(float(values["r2"]))
        if self.monitor in self.minimised:
            return self.bound_skill(values[self.monitor])
        return super().score(values)

    def describe_score(self) -> str:
        if self.monitor not in ERRORS:
            return super().describe_score()
        skill = "R2" if self.monitor == "r2" else f"1 - {spell_metric(self.monitor)} / std"
        return f"{skill}, at least {LEAST:g}"

    # -- people ------------------------------------------------------------------------------------
    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        return name_spread(self.in_units(outputs_M), ())

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        known = is_labelled(targets)[..., 0].tolist()
        numbers = self.in_units(targets[..., 0]).tolist()
        signs = targets[..., 1].tolist()
        rows = zip(numbers, signs, known, strict=True)
        return {"": [write_bound(y, sign) if there else None for y, sign, there in rows]}

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        return {"": self.in_units(outputs.squeeze(-1)).tolist()}
