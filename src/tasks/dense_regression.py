"""A number for each pixel, such as its depth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.error_sums import ErrorSums
from src.tasks.label_count import LabelCount
from src.tasks.labels import BadLabel, is_labelled
from src.tasks.pixels import PixelLabels, describe_place, refuse_pooled
from src.tasks.r2 import R2
from src.tasks.regression import Regression

NEAR_ZERO = 1e-3  # in standard deviations


@dataclass(frozen=True, kw_only=True)
class DenseRegression(PixelLabels, Regression):
    """Squared, absolute or Huber error of each pixel: targets (B, H, W), outputs (B, H, W, 1).

    The model sees (y - mean) / std, so that losses of several tasks are of one size; with the
    settings ``mean: [0]`` and ``std: [1]`` it sees the labels as they are, as most published code
    does. With ``names`` a pixel has several numbers, (B, H, W, L).

    Metrics are in the label's own unit and count each pixel of all images once: mae and rmse, the
    absolute and root mean squared error; relative_error, the mean of |p - y| / |y| (labels nearer
    to 0 than a thousandth of their standard deviation are left out of it); r2.

    Attributes:
        missing_value: The number that stands in files for a pixel without a label, such as 0 for
            an unknown depth; None if there is none. NaN always is one.
    """

    minimised: ClassVar[tuple[str, ...]] = ("mae", "rmse", "relative_error")
    metric_names: ClassVar[tuple[str, ...]] = ("mae", "relative_error", "rmse", "r2")

    missing_value: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_pooled("DenseRegression", self.pooled)

    # -- labels ------------------------------------------------------------------------------------
    def learn(self, maps: Iterable[np.ndarray]) -> Self:
        if self.mean is not None and self.std is not None:
            return self
        count = np.zeros(self.values_per_label)
        total = np.zeros(self.values_per_label)
        squares = np.zeros(self.values_per_label)
        for values in maps:
            numbers = self._to_numbers(values[None]).reshape(-1, self.values_per_label)
            known = ~np.isnan(numbers)
            seen = known.sum(0)
            if not seen.all():
                continue

            # sums of squares about the mean are merged, not those about 0, which lose digits
            mean = np.nanmean(numbers, axis=0)
            apart = mean - total / np.maximum(count, 1)
            own = np.nansum((numbers - mean) ** 2, axis=0)
            squares += own + apart**2 * seen * count / (count + seen)
            total += np.nansum(numbers, axis=0)
            count += seen
        if not count.all():
            raise UserError("has no label in the training split")
        std = np.sqrt(squares / count)
        if self.std is None and not (std > 1e-12 * np.abs(total / count)).all():
            raise UserError("has a single value in the training split; there is nothing to learn")
        return replace(
            self,
            mean=self.mean or tuple((total / count).tolist()),
            std=self.std or tuple(std.tolist()),
        )

    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        return self.learn([values])

    def encode(self, values: np.ndarray) -> Tensor:
        assert self.mean is not None and self.std is not None, "fit first"
        mean, std = (np.asarray(v) if self.names else v[0] for v in (self.mean, self.std))
        return torch.from_numpy((self._to_numbers(values) - mean) / std).float()

    def _to_numbers(self, values: np.ndarray) -> np.ndarray:
        """Returns labels as read in float64, NaN where there is none."""
        numbers = values.astype(np.float64)
        if self.missing_value is not None:
            numbers[numbers == self.missing_value] = np.nan
        infinite = np.isinf(numbers)
        if infinite.any():
            index = np.argwhere(infinite)[0]
            raise BadLabel(
                int(index[0]),
                f"holds {numbers[tuple(index)]} {describe_place(index)}; targets must be finite",
            )
        return numbers

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        size = self.values_per_label
        return MetricCollection(
            {"errors": ErrorSums(), "r2": R2(size), "count": LabelCount(size)},
            compute_groups=False,
        )

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        assert self.std is not None, "fit first"
        measured = super().measure(outputs, targets)
        scale = targets.new_tensor(self.std).double().expand(*measured["standard_target"].shape)
        known = is_labelled(measured["standard_target"])
        measured["has_relative"] = measured["target"].abs() > NEAR_ZERO * scale[known]
        return measured

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        mae, rmse, relative = computed["errors"]
        return {"mae": mae, "rmse": rmse, "relative_error": relative, "r2": computed["r2"]}

    # -- people ------------------------------------------------------------------------------------
    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        """Returns that of the numbers in their own unit, mean over pixels and outputs."""
        values_M = self.in_units(self.predict(outputs_M.double()))
        return {"spread": values_M.std(0, correction=0).flatten(1).mean(1).tolist()}

    def decode_map(self, outputs: Tensor) -> np.ndarray:
        """Returns the numbers in their own unit, float32: (B, H, W), or (B, H, W, L)."""
        values = self.in_units(self.predict(outputs).double()).float().numpy()
        return values if self.names else values[..., 0]

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        """Returns the mean over the pixels of an image: mean, or mean_<output>."""
        return self._average(self.predict(outputs))

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        return self._average(targets if self.names else targets[..., None])

    def _average(self, standardised: Tensor) -> dict[str, Any]:
        values = self.in_units(standardised.double()).flatten(1, -2)
        columns = {}
        for name, numbers in zip(self.names or ("",), values.unbind(-1), strict=True):
            means = [None if np.isnan(mean) else mean for mean in numbers.nanmean(1).tolist()]
            columns[f"mean_{name}" if name else "mean"] = means
        return columns
