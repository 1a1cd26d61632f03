"""A number of events, such as visits: 0, 1, 2 ..."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.ensembling import name_spread
from src.tasks.increments import invert_softplus
from src.tasks.label_count import LabelCount
from src.tasks.labels import BadLabel, is_labelled, pair_with_known, to_numbers
from src.tasks.metric_classes import spell_metric
from src.tasks.standardised import LEAST, at_least
from src.tasks.sums import Sums, spread_weights
from src.tasks.task import Task

SMALLEST = 1e-6  # dispersion; below it the two distributions are one


@dataclass(frozen=True, kw_only=True)
class Counts(Task):
    """Poisson or negative binomial regression with a log link.

    The expected count of a row is mu = exp(o_0) x rate x offset: the network's factor, the mean
    rate of the training rows, and the row's offset (its exposure, such as days of observation; 1
    without one). The loss is the whole negative log likelihood of the count y, constants included:

    - ``poisson``: mu - y log mu + log y!
    - ``negative_binomial``, of variance mu + a mu^2 (NB2; Cameron and Trivedi, "Regression Analysis
      of Count Data", 2013): log G(1/a) + log y! - log G(y + 1/a) + (y + 1/a) log(1 + a mu)
      - y log(a mu), with the gamma function G. The dispersion a = softplus(o_1) is an output, and
      so may depend on the input.

    A label is two numbers, targets (..., 2): the count, and offset x rate. Both have the loss of
    the label, and both are NaN where the count or the offset is missing. Predictions are rates per
    unit of the offset.

    Metrics are about expected counts mu: ``poisson_deviance``, the mean of
    2 (y log(y / mu) - y + mu); ``mae``; and ``d2``, the share of the deviance of the best constant
    rate that is explained. For model selection d2 is at least -1, see Regression.

    Attributes:
        distribution: poisson or negative_binomial.
        offset: The column of the exposure, a number above 0; none where all rows count alike.
        rate: Mean count per unit of the offset over the training labels; learnt when None.
        mean: Mean count over the training labels; learnt when None.
    """

    column_settings: ClassVar[tuple[str, ...]] = ("offset",)
    not_in_loss: ClassVar[tuple[str, ...]] = ("offset", "rate", "mean")
    scale_fields: ClassVar[tuple[str, ...]] = ("rate", "mean")
    event_dims: ClassVar[int] = 1
    metric_names: ClassVar[tuple[str, ...]] = ("poisson_deviance", "mae", "d2")
    minimised: ClassVar[tuple[str, ...]] = ("poisson_deviance", "mae")

    distribution: Literal["poisson", "negative_binomial"] = "poisson"
    offset: str | None = None
    rate: float | None = None
    mean: float | None = None
    monitor: str = "d2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distribution not in ("poisson", "negative_binomial"):
            raise UserError(
                f"Counts: distribution '{self.distribution}' is none of poisson, negative_binomial"
            )
        for key, value in (("rate", self.rate), ("mean", self.mean)):
            if value is not None and not value > 0:
                raise UserError(f"Counts: {key} {value} must be above 0")

    @property
    def values_per_label(self) -> int:
        return 2

    # -- labels ------------------------------------------------------------------------------------
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        counts, offsets = self._read(values)
        known = ~np.isnan(counts)
        if not known.any():
            raise UserError(f"has no row with a label and its offset '{self.offset}' to train on")
        total = counts[known].sum()
        if not total and None in (self.rate, self.mean):
            raise UserError("is 0 in all rows of the training split; there is nothing to learn")
        return replace(
            self,
            rate=self.rate or float(total / offsets[known].sum()),
            mean=self.mean or float(total / known.sum()),
        )

    def encode(self, values: np.ndarray) -> Tensor:
        assert self.rate is not None, "fit first"
        counts, offsets = self._read(values)
        return torch.from_numpy(np.stack([counts, offsets * self.rate], -1)).float()

    def _read(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns counts and offsets (N,), NaN where one of them is missing."""
        wanted = 1 if self.offset is None else 2
        columns = values.reshape(len(values), -1)
        if columns.shape[1] != wanted:
            way_out = "" if self.offset else "; the column of an exposure is its setting offset"
            raise UserError(f"has {columns.shape[1]} columns, where {wanted} is right{way_out}")

        counts = to_numbers(columns[:, 0])
        wrong = (counts < 0) | (counts != np.floor(counts)) & ~np.isnan(counts)
        if wrong.any():
            row = int(wrong.argmax())
            raise BadLabel(row, f"holds {counts[row]:g}, where a count is expected: 0, 1, 2 ...")
        offsets = to_numbers(columns[:, 1]) if wanted == 2 else np.ones(len(counts))
        wrong = offsets <= 0
        if wrong.any():
            row = int(wrong.argmax())
            raise BadLabel(
                row, f"has the offset {offsets[row]:g} ('{self.offset}'), which must be above 0"
            )
        missing = np.isnan(counts) | np.isnan(offsets)
        return np.where(missing, np.nan, counts), np.where(missing, np.nan, offsets)

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def out_features(self) -> int:
        return 1 if self.distribution == "poisson" else 2

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mask = is_labelled(targets)
        # in fp32 the gamma functions of large counts cancel
        y, base = targets.where(mask, 1).double().unbind(-1)
        log_mean = outputs[..., 0].double() + base.log()
        if self.distribution == "poisson":
            losses = log_mean.exp() - y * log_mean + (y + 1).lgamma()
        else:
            a = self._dispersion(outputs)
            r = 1 / a
            gammas = r.lgamma() + (y + 1).lgamma() - (y + r).lgamma()
            scaled = log_mean + a.log()
            losses = gammas + (y + r) * F.softplus(scaled) - y * scaled
        return losses.to(outputs.dtype).unsqueeze(-1) * mask

    def _dispersion(self, outputs: Tensor) -> Tensor:
        """Returns the dispersion of the negative binomial distribution (...), fp64."""
        return F.softplus(outputs[..., 1].double()) + SMALLEST

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        return MetricCollection({"sums": Sums(6), "count": LabelCount()}, compute_groups=False)

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        mask = is_labelled(targets)[..., 0].flatten()
        y, base = targets.double().flatten(0, -2).nan_to_num(1.0).unbind(-1)
        mean = outputs[..., 0].double().flatten().exp() * base
        deviance = 2 * (torch.xlogy(y, y / mean) - y + mean)
        columns = [torch.ones_like(y), y, base, torch.xlogy(y, y / base)]
        statistics = torch.stack([*columns, deviance, (y - mean).abs()], -1)
        return {
            "statistics": statistics.where(mask[:, None], 0),
            "counts": mask.sum(),
        }

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        return {"row_weights": spread_weights(weights, targets[..., 0])}

    def find_undefined(self, counts: Tensor) -> set[str]:
        return set() if counts.any() else set(self.metric_names)

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        if "sums" not in computed:
            return computed
        number, y, base, logs, deviance, errors = computed["sums"]
        # the best constant rate is the one that expects as many events as there were
        constant = 2 * (logs - torch.xlogy(y, y / base))
        d2 = torch.where(constant > 1e-12 * y, 1 - deviance / constant, float("nan"))
        found = {"poisson_deviance": deviance / number, "mae": errors / number, "d2": d2}
        return found | computed

    def collect_rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns expected counts and counts, both (N,)."""
        y, base = targets.double().flatten(0, -2).unbind(-1)
        return outputs[..., 0].double().flatten().exp() * base.nan_to_num(1.0), y

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        means = torch.rand(32, generator=torch.Generator().manual_seed(0)).double() + 0.5
        return means, torch.arange(32).double() % 3 + 1

    # -- model selection ---------------------------------------------------------------------------
    def score(self, values: Mapping[str, Tensor | float]) -> float:
        """Returns D2, also for the deviance; of MAE 1 - MAE / mean count. It is at least -1."""
        if self.monitor not in self.metric_names:
            return super().score(values)
        skill = float(values["d2"])
        if self.monitor == "mae":
            assert self.mean is not None, "fit first"
            skill = 1 - float(values["mae"]) / self.mean
        return at_least(skill)

    def describe_score(self) -> str:
        if self.monitor not in self.metric_names:
            return super().describe_score()
        skill = "1 - MAE / mean count" if self.monitor == "mae" else spell_metric("d2")
        return f"{skill}, at least {LEAST:g}"

    # -- people ------------------------------------------------------------------------------------
    def predict(self, outputs: Tensor) -> Tensor:
        """Turns outputs (..., O) into rates per unit of the offset (...), fp64."""
        assert self.rate is not None, "fit first"
        return (outputs[..., 0].double() + log(self.rate)).exp()

    def mix(self, outputs_M: Tensor) -> Tensor:
        """Returns the outputs of the mean rate, and of the mean dispersion."""
        mean = outputs_M[..., :1].logsumexp(0) - log(len(outputs_M))
        if self.distribution == "poisson":
            return mean
        dispersion = F.softplus(outputs_M[..., 1:]).mean(0)
        return torch.cat([mean, invert_softplus(dispersion)], -1)

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        return name_spread(self.predict(outputs_M)[..., None], ())

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        assert self.rate is not None, "fit first"
        counts, bases = (pair_with_known(column) for column in targets.double().unbind(-1))
        columns = {"": [int(count) if known else None for count, known in counts]}
        if self.offset is not None:
            columns[self.offset] = [base / self.rate if known else None for base, known in bases]
        return columns

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        decoded: dict[str, Any] = {"": self.predict(outputs).tolist()}
        if self.distribution == "negative_binomial":
            decoded["dispersion"] = self._dispersion(outputs).tolist()
        return decoded
