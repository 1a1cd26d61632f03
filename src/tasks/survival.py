"""The time until an event, which for some rows is only known to be later than a time."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.ensembling import name_spread
from src.tasks.increments import invert_softplus
from src.tasks.label_count import LabelCount
from src.tasks.labels import BadLabel, is_known, is_labelled, pair_with_known, to_numbers
from src.tasks.sums import spread_weights
from src.tasks.survival_metrics import (
    SurvivalRows,
    compute_brier,
    compute_concordance,
    integrate_over,
)
from src.tasks.task import Task, make_constant

HAPPENED = {"1": 1.0, "1.0": 1.0, "true": 1.0, "yes": 1.0}
CENSORED = {"0": 0.0, "0.0": 0.0, "false": 0.0, "no": 0.0}


@dataclass(frozen=True, kw_only=True)
class Survival(Task):
    """Discrete hazards of J intervals of time: outputs (..., J).

    A label is a time and whether the event happened then; without an event, the row was observed
    up to that time. Output o_j is the logit of the hazard h_j, the probability of an event in
    interval j for rows that survive the intervals before it. The loss is the negative log
    likelihood: -log(1 - h_j) for each interval that a row survives, and -log h_j for the one of its
    event (Gensheimer and Narasimhan, "A scalable discrete-time survival model for neural networks",
    PeerJ 2019). A row that is censored survives an interval if it was observed for half of it, as
    in the paper. An interval ends at its last time, which belongs to it; after the last interval
    nothing is modelled.

    Intervals end at quantiles of the times of training events, so that each has about as many
    events; the last one ends at the last event.

    Targets (..., 3) are the time, 1 for an event, and the number of intervals that are survived.
    All three have the loss of the label.

    Metrics, from all rows of all processes: ``concordance``, Harrell's, of the expected times; and
    ``integrated_brier``, the Brier score over the ends of the intervals, weighted for censoring.

    The prediction is the mean time restricted to the end of the last interval, the area below the
    survival curve, which is linear within an interval.

    Attributes:
        intervals: Number of intervals; equal quantiles make it smaller.
        ends: The ends of the intervals, increasing; learnt when empty.
        names: Names of the columns of the time and of the event; learnt when empty.
    """

    label_forms: ClassVar[tuple[str, ...]] = ("number", "class")
    not_in_loss: ClassVar[tuple[str, ...]] = ("intervals", "ends", "names")
    scale_fields: ClassVar[tuple[str, ...]] = ("ends",)
    event_dims: ClassVar[int] = 1
    metric_names: ClassVar[tuple[str, ...]] = ("concordance", "integrated_brier")
    minimised: ClassVar[tuple[str, ...]] = ("integrated_brier",)

    intervals: int = 10
    ends: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    monitor: str = "concordance"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.intervals < 1:
            raise UserError(f"Survival: intervals is {self.intervals}; it must be at least 1")
        if any(before >= after for before, after in pairwise((0.0, *self.ends))):
            raise UserError(
                f"Survival: ends {', '.join(f'{end:g}' for end in self.ends)} must increase from 0"
            )

    @property
    def values_per_label(self) -> int:
        return 3

    # -- labels ------------------------------------------------------------------------------------
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        times, events = self._read(values)
        names = self.names or tuple(names)
        if self.ends:
            return replace(self, names=names)
        found = times[events == 1]
        found = found[found > 0]
        if not len(found):
            raise UserError("has no event after time 0 in the training split; nothing is to learn")
        # quantiles are observed times, so that the last one is exactly the last event
        shares = np.arange(1, self.intervals + 1) / self.intervals
        ends = np.unique(np.quantile(found, shares, method="inverted_cdf"))
        return replace(self, names=names, ends=tuple(ends.tolist()))

    def encode(self, values: np.ndarray) -> Tensor:
        assert self.ends, "fit first"
        times, events = self._read(values)
        ends = np.array(self.ends)
        middles = (np.array([0.0, *self.ends[:-1]]) + ends) / 2
        survived = np.where(
            events == 1,
            np.searchsorted(ends, times, side="left"),
            np.searchsorted(middles, times, side="right"),
        ).astype(float)
        survived[np.isnan(times)] = np.nan
        return torch.from_numpy(np.stack([times, events, survived], -1)).float()

    def _read(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns times and events (N,), NaN where one of them is missing."""
        if values.ndim != 2 or values.shape[1] != 2:
            raise UserError(
                "must be a list of two columns, the time and whether the event happened then"
            )
        times = to_numbers(values[:, 0])
        if (times < 0).any():
            early = int((times < 0).argmax())
            raise BadLabel(early, f"holds the time {times[early]:g}, which must be at least 0")
        events = np.full(len(values), np.nan)
        for row in np.flatnonzero(is_known(values[:, 1])):
            word = str(values[row, 1])
            meaning = (HAPPENED | CENSORED).get(word.strip().lower())
            if meaning is None:
                raise BadLabel(
                    int(row),
                    f"holds the event '{word}', where 1 or 0, True or False, yes or no is expected",
                )
            events[row] = meaning
        missing = np.isnan(times) | np.isnan(events)
        return np.where(missing, np.nan, times), np.where(missing, np.nan, events)

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def out_features(self) -> int:
        return len(self.ends)

    @property
    def output_names(self) -> tuple[Hashable, ...]:
        return tuple(pairwise((0.0, *self.ends)))

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mask = is_labelled(targets)
        _, event, survived = targets.where(mask, 0).unsqueeze(-2).unbind(-1)
        intervals = torch.arange(outputs.shape[-1], device=outputs.device)
        # -log(1 - h) = softplus(o), and -log h = softplus(-o)
        survives = F.softplus(outputs) * (intervals < survived)
        ends = F.softplus(-outputs) * (intervals == survived) * event
        return (survives + ends).sum(-1, keepdim=True) * mask

    # -- metrics -----------------------------------------------------------------------------------
    def build_metrics(self) -> MetricCollection:
        return MetricCollection(
            {"survival": SurvivalRows(), "count": LabelCount(2)}, compute_groups=False
        )

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        curves = self.predict(outputs).flatten(0, -2)
        expected = self.expect_time(curves)
        outcomes = targets.double().flatten(0, -2)[:, :2]
        known = is_labelled(outcomes)[:, 0]
        events = (outcomes[:, 1] == 1).sum()
        return {
            "curves": torch.cat([expected[:, None], curves], -1),
            "outcomes": outcomes,
            "counts": torch.stack([known.sum() - events, events]),
        }

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        return {"row_weights": spread_weights(weights, targets[..., 0])}

    def find_undefined(self, counts: Tensor) -> set[str]:
        return set() if counts.any() else set(self.metric_names)

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        # torchmetrics has the two tensors of a metric side by side
        if "survival" not in computed:
            return computed
        return self._compare(*computed["survival"]) | computed

    def _compare(self, curves: Tensor, outcomes: Tensor) -> dict[str, Tensor]:
        """Computes the metrics of rows, missing labels among them."""
        # a row without weight may be later than all others, where no weight is left
        known = is_labelled(outcomes)[:, 0] & (outcomes[:, 2] > 0)
        if not known.any():
            return dict.fromkeys(self.metric_names, outcomes.new_tensor(float("nan")))
        expected, survival = curves[known, 0], curves[known, 1:]
        times, events, weights = outcomes[known].unbind(-1)
        # times are fp32 numbers, and an event at an end must not be beyond it
        at = make_constant(self.ends, (times.device, torch.float32)).double()
        brier = compute_brier(times, events, survival, at, weights)
        return {
            "concordance": compute_concordance(times, events, expected, weights),
            "integrated_brier": integrate_over(brier, at),
        }

    def collect_rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns expected times, and the times of events; censored rows count as missing."""
        time, event, _ = targets.double().flatten(0, -2).unbind(-1)
        expected = self.expect_time(self.predict(outputs).flatten(0, -2))
        return expected, time.where(event == 1, float("nan"))

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        rows = torch.rand(2, 32, generator=torch.Generator().manual_seed(0)).double() + 0.5
        return rows[0], rows[1]

    # -- people ------------------------------------------------------------------------------------
    def predict(self, outputs: Tensor) -> Tensor:
        """Turns outputs (..., J) into the probabilities to survive each interval (..., J), fp64."""
        return F.logsigmoid(-outputs.double()).cumsum(-1).exp()

    def expect_time(self, survival: Tensor) -> Tensor:
        """Returns the mean times (...), restricted to the last interval, of curves (..., J)."""
        ends = make_constant((0.0, *self.ends), (survival.device, survival.dtype))
        before = torch.cat([torch.ones_like(survival[..., :1]), survival[..., :-1]], -1)
        return ((before + survival) / 2 * ends.diff()).sum(-1)

    def mix(self, outputs_M: Tensor) -> Tensor:
        """Returns the outputs of the mean of the survival curves."""
        logs = F.logsigmoid(-outputs_M).cumsum(-1).logsumexp(0) - np.log(len(outputs_M))
        before = torch.cat([torch.zeros_like(logs[..., :1]), logs[..., :-1]], -1)
        return invert_softplus(before - logs)

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        """Returns that of the expected time."""
        return name_spread(self.expect_time(self.predict(outputs_M))[..., None], ())

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        times, events, _ = (pair_with_known(column) for column in targets.double().unbind(-1))
        first, second = self.names or ("time", "event")
        return {
            first: [time if known else None for time, known in times],
            second: [int(event) if known else None for event, known in events],
        }

    def decode(self, outputs: Tensor) -> dict[str, Any]:
        curves = self.predict(outputs)
        decoded: dict[str, Any] = {"": self.expect_time(curves).tolist()}
        for j, end in enumerate(self.ends):
            decoded[f"survival_{end:g}"] = curves[..., j].tolist()
        return decoded
