"""Several quantiles of a number, so that a prediction comes with an interval."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.ensembling import name_spread
from src.tasks.increments import invert_spread, spread_from
from src.tasks.label_count import LabelCount
from src.tasks.labels import is_labelled, pair_with_known, to_numbers
from src.tasks.metric_classes import spell_metric
from src.tasks.standardised import LEAST, Standardised, needs_one_column
from src.tasks.sums import Sums, spread_weights
from src.tasks.task import Task, make_constant

MEDIAN = 0.5


@dataclass(frozen=True, kw_only=True)
class Quantiles(Standardised, Task):
    """Quantile regression: targets (...) of numbers, outputs (..., Q), one for each level.

    The output of the median is its value, (y - mean) / std. From there each further quantile is the
    one before it plus softplus of its output, or minus softplus to the left, so that quantiles
    never cross. The loss is the mean over levels t of the pinball loss of the difference
    d = y - q_t, max(t d, (t - 1) d) (Koenker and Bassett, "Regression quantiles", Econometrica
    1978).

    Metrics, in the label's own unit: ``pinball``, the mean of the losses; ``mae`` of the median;
    and the share of labels within the outer interval, whose name has the share that is due, such
    as ``coverage_0.8`` for the levels 0.1 to 0.9. Metrics that ``metrics`` adds see the median.

    For model selection the value is 1 - error / std, at least -1, see Regression. The coverage
    selects no model: the best one is not the largest.

    Attributes:
        levels: The levels of the quantiles, increasing, 0.5 among them.
    """

    not_in_loss: ClassVar[tuple[str, ...]] = ("mean", "std")
    scale_fields: ClassVar[tuple[str, ...]] = ("mean", "std")
    likelihood: ClassVar[str] = "laplace"
    minimised: ClassVar[tuple[str, ...]] = ("pinball", "mae")

    levels: tuple[float, ...] = (0.1, 0.5, 0.9)
    monitor: str = "pinball"

    def __post_init__(self) -> None:
        levels = self.levels
        shown = ", ".join(f"{level:g}" for level in levels)
        rising = all(before < after for before, after in pairwise(levels))
        if not levels or not rising or not 0 < levels[0] <= levels[-1] < 1:
            raise UserError(f"Quantiles: levels [{shown}] must increase between 0 and 1")
        if MEDIAN not in levels:
            raise UserError(
                f"Quantiles: levels [{shown}] lack {MEDIAN}, the median, which is the prediction"
            )
        super().__post_init__()
        self.check_scale()

    @property
    def metric_names(self) -> tuple[str, ...]:  # type: ignore[override]  # it names the interval
        names = ["pinball", "mae"]
        if len(self.levels) > 1:
            names.append(self.coverage)
        return tuple(names)

    @property
    def coverage(self) -> str:
        """The name of the metric of the outer interval."""
        return f"coverage_{self.levels[-1] - self.levels[0]:.6g}"

    @property
    def monitors(self) -> tuple[str, ...]:
        return tuple(name for name in self.all_metric_names if name != self.coverage)

    @property
    def middle(self) -> int:
        """The place of the median."""
        return self.levels.index(MEDIAN)

    # -- labels ------------------------------------------------------------------------------------
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        needs_one_column(values, "Quantiles")
        return self.fit_scale(to_numbers(values))

    def encode(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(self.standardise(to_numbers(values))).float()

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def out_features(self) -> int:
        return len(self.levels)

    @property
    def output_names(self) -> tuple[Hashable, ...]:
        return self.levels

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mask = is_labelled(targets)
        levels = make_constant(self.levels, (outputs.device, outputs.dtype))
        known = targets.where(mask, 0).unsqueeze(-1)
        return compute_pinball(self.predict(outputs), known, levels).mean(-1) * mask

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        return MetricCollection({"sums": Sums(4), "count": LabelCount()}, compute_groups=False)

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        # fp32 has no digits left for the error of a price near 1e9
        values = self.in_units(self.predict(outputs.double())).flatten(0, -2)
        mask = is_labelled(targets).flatten()
        y = self.in_units(targets).flatten().nan_to_num(0.0)
        levels = make_constant(self.levels, (values.device, values.dtype))
        pinball = compute_pinball(values, y[:, None], levels).mean(-1)
        error = (y - values[:, self.middle]).abs()
        inside = (values[:, 0] <= y) & (y <= values[:, -1])
        statistics = torch.stack([torch.ones_like(y), pinball, error, inside.double()], -1)
        return {"statistics": statistics.where(mask[:, None], 0), "counts": mask.sum()}

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        return {"row_weights": spread_weights(weights, targets)}

    def find_undefined(self, counts: Tensor) -> set[str]:
        return set() if counts.any() else set(self.metric_names)

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        if "sums" not in computed:
            return computed
        number, pinball, errors, inside = computed["sums"]
        found = {"pinball": pinball / number, "mae": errors / number}
        return found | {self.coverage: inside / number} | computed

    def collect_rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns medians and labels in the label's own unit, both (N,)."""
        medians = self.in_units(outputs[..., self.middle].flatten())
        return medians, self.in_units(targets.flatten())

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        # above 0, where each of torchmetrics' regression metrics is defined
        rows = torch.rand(2, 32, generator=torch.Generator().manual_seed(0)).double() + 0.5
        return rows[0], rows[1]

    # -- model selection ---------------------------------------------------------------------------
    def score(self, values: Mapping[str, Tensor | float]) -> float:
        """Returns 1 - error / std, at least -1, of the pinball loss or of MAE."""
        if self.monitor not in self.minimised:
            return super().score(values)
        return self.bound_skill(values[self.monitor])

    def describe_score(self) -> str:
        if self.monitor not in self.minimised:
            return super().describe_score()
        return f"1 - {spell_metric(self.monitor)} / std, at least {LEAST:g}"

    # -- people ------------------------------------------------------------------------------------
    def predict(self, outputs: Tensor) -> Tensor:
        """Turns outputs (..., Q) into standardised quantiles (..., Q), which increase."""
        return spread_from(outputs, self.middle)

    def mix(self, outputs_M: Tensor) -> Tensor:
        """Returns the outputs of the mean of each quantile."""
        return invert_spread(self.predict(outputs_M).mean(0), self.middle)

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        return name_spread(self.in_units(self.predict(outputs_M)), self._names())

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        labels = pair_with_known(self.in_units(targets))
        return {"": [number if known else None for number, known in labels]}

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        values = self.in_units(self.predict(outputs))
        decoded: dict[str, Any] = {"": values[..., self.middle].tolist()}
        for k, name in enumerate(self._names()):
            decoded[name] = values[..., k].tolist()
        return decoded

    def _names(self) -> list[str]:
        """Returns the names of the quantiles as columns."""
        return [f"q{level:g}" for level in self.levels]


def compute_pinball(quantiles: Tensor, labels: Tensor, levels: Tensor) -> Tensor:
    """Returns the pinball losses (..., Q) of quantiles (..., Q) for labels (..., 1)."""
    d = labels - quantiles
    return torch.maximum(levels * d, (levels - 1) * d)
