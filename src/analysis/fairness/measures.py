"""The metrics of tasks by group, each with an interval from draws of the group's rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from src.analysis.fairness.coverage import METRIC
from src.analysis.fairness.groups import Group
from src.analysis.fairness.rates import Decisions, collect_decisions, to_logits
from src.rng import make_generator
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    SurfaceNormals,
    Task,
    is_labelled,
)

FEWEST = 30  # rows with a label, below which a group has no value
BIAS = "bias"


@dataclass(frozen=True)
class GroupRow:
    """A metric of a task in a group.

    Attributes:
        task: The task.
        metric: The metric.
        groups: {column: value}; empty for all rows.
        n: Rows of the group whose label is known.
        value: The value; None where the rows do not tell it.
        low: The lower end of its 95 % interval.
        high: The upper end.
        note: Why there is no value; None where there is one.
    """

    task: str
    metric: str
    groups: Mapping[str, str]
    n: int
    value: float | None
    low: float | None
    high: float | None
    note: str | None


@dataclass(frozen=True)
class TaskRows:
    """A task's outputs and labels for all rows, measured on some of them at a time.

    Attributes:
        name: The task's name.
        task: The task, with the thresholds that decide.
        outputs: (N, ..., O).
        targets: (N, ...).
        weights: (N,) weights of the rows; None weighs all alike.
        decided: (N,) whether a binary task says yes, where thresholds by group decide.
        covered: (N, L) whether labels lie in their conformal sets or intervals, NaN where they are
            missing; None where there are no sets.
    """

    name: str
    task: Task
    outputs: Tensor
    targets: Tensor
    weights: Tensor | None = None
    decided: Tensor | None = None
    covered: Tensor | None = None

    @cached_property
    def known(self) -> Tensor:
        """(N,) whether a row has a label."""
        known = is_labelled(self.targets)
        return known.flatten(1).any(1) if known.ndim > 1 else known

    @cached_property
    def metric_names(self) -> list[str]:
        """The metrics, which do not depend on the rows."""
        return list(self.measure(torch.arange(len(self.targets))))

    @cached_property
    def decisions(self) -> list[Decisions]:
        """The decisions of the task; [] where it makes none."""
        return collect_decisions(self.task, self.outputs, self.targets, self.decided)

    def measure(self, rows: Tensor) -> dict[str, float]:
        """Returns every metric over some rows, which may come several times; NaN where undefined.

        They are the task's own metrics, the rates of its decisions, the mean signed error
        (prediction minus label, in the label's unit) of numbers, and the share of labels within
        their intervals.
        """
        metrics = self.task.assemble_metrics()
        row_weights = None if self.weights is None else self.weights[rows]
        self.task.update_metrics(metrics, self.outputs[rows], self.targets[rows], row_weights)
        found = {name: float(value) for name, value in self.task.compute(metrics).items()}
        if self.decided is not None:
            assert isinstance(self.task, BinaryClassification)
            decided = self.decided[rows]
            found |= measure_decisions(self.task, decided, self.targets[rows], row_weights)
        weights = self._find_weights()
        for own in self.decisions:
            found |= own.compute(rows, weights)
        found |= self._measure_bias(rows)
        found |= self._measure_coverage(rows)
        return found

    def find_notes(self, rows: Tensor) -> dict[str, str]:
        """Returns {metric: why these rows do not tell it}, for rates of decisions."""
        notes: dict[str, str] = {}
        for own in self.decisions:
            notes |= own.find_notes(rows)
        return notes

    def _find_weights(self) -> Tensor | None:
        """Returns the weights of rows where the task's own metrics weigh them, too."""
        return self.weights if self.task.weighs_metrics else None

    def _measure_bias(self, rows: Tensor) -> dict[str, float]:
        """Returns the mean signed error of each number that the task predicts."""
        if isinstance(
            self.task,
            BinaryClassification | MultilabelClassification | Classification | SurfaceNormals,
        ):
            return {}
        preds, labels = self.task.collect_rows(self.outputs[rows], self.targets[rows])
        if preds.shape != labels.shape or not labels.is_floating_point():
            return {}
        names = getattr(self.task, "names", ())
        suffixes = [f".{name}" for name in names] if labels.ndim > 1 else [""]
        errors = (preds.double() - labels.double()).reshape(len(labels), -1)
        known = ~errors.isnan()
        own = known.double()
        weights = self._find_weights()
        if weights is not None and len(errors) == len(rows):
            own = own * weights[rows].double()[:, None]
        means = (errors.nan_to_num(0.0) * own).sum(0) / own.sum(0)
        return {f"{BIAS}{name}": mean for name, mean in zip(suffixes, means.tolist(), strict=False)}

    def _measure_coverage(self, rows: Tensor) -> dict[str, float]:
        """Returns the share of labels in their sets or intervals, where there are some."""
        if self.covered is None:
            return {}
        covered = self.covered[rows]
        own = (~covered.isnan()).double()
        weights = self._find_weights()
        if weights is not None:
            own = own * weights[rows].double()[:, None]
        return {METRIC: float((covered.nan_to_num(0.0) * own).sum() / own.sum())}


def list_decision_metrics(task: BinaryClassification) -> list[str]:
    """Returns the metrics of a binary task that depend on its threshold."""
    # a threshold that was set by hand is a question of its own
    added = [
        metric.name
        for metric in task.added_metrics
        if metric.takes("threshold") and "threshold" not in metric.settings
    ]
    return ["accuracy", "f1", *added]


def measure_decisions(
    task: BinaryClassification, decided: Tensor, targets: Tensor, weights: Tensor | None
) -> dict[str, float]:
    """Returns the metrics of a binary task that depend on its decisions.

    Args:
        task: The task.
        decided: (N,) whether it says yes.
        targets: (N,).
        weights: (N,) weights of the rows; None weighs all alike.
    """
    # the task's own lines measure decisions, whoever makes them
    halved = replace(task, threshold=0.5)
    metrics = halved.assemble_metrics()
    halved.update_metrics(metrics, to_logits(decided), targets, weights)
    values = halved.compute(metrics)
    return {name: float(values[name]) for name in list_decision_metrics(task)}


def measure_groups(
    tasks: Sequence[TaskRows],
    groups: Sequence[Group],
    draws: int,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> list[GroupRow]:
    """Measures each task in each group.

    The interval holds the middle 95 % of the metric over draws of the group's rows with
    replacement. It describes other rows of the same group, not other trainings.

    Args:
        tasks: The tasks.
        groups: The groups; a group with fewer than ``FEWEST`` labels has no values.
        draws: How many draws.
        seed: Their seed; with the place of the group it settles them.
        advance: Called after each task in a group.
    """
    found: list[GroupRow] = []
    for place, group in enumerate(groups):
        for own in tasks:
            found += measure_group(own, group, draws, (seed, place))
            advance()
    return found


def measure_group(
    own: TaskRows, group: Group, draws: int, key: tuple[int, ...]
) -> Iterator[GroupRow]:
    """Yields the metrics of a task in a group.

    Args:
        own: The task.
        group: The group.
        draws: How many draws of its rows.
        key: The key of the random numbers.
    """
    inside = torch.from_numpy(group.rows)
    rows = inside[own.known[inside]]
    count = len(rows)
    if count < FEWEST:
        note = f"{count or 'no'} row{'s' * (count != 1)} with a label, fewer than {FEWEST}"
        for metric in own.metric_names:
            yield GroupRow(own.name, metric, group.values, count, None, None, None, note)
        return

    values = own.measure(rows)
    notes = own.find_notes(rows)
    generator = make_generator(*key)
    drawn: dict[str, list[float]] = {metric: [] for metric in values}
    for _ in range(draws):
        sample = rows[torch.randint(count, (count,), generator=generator)]
        for metric, value in own.measure(sample).items():
            drawn[metric].append(value)

    for metric, value in values.items():
        reason = notes.get(metric)
        if reason is None and not isfinite(value):
            reason = "the labels of these rows do not define it"
        if reason is not None:
            yield GroupRow(own.name, metric, group.values, count, None, None, None, reason)
            continue
        low, high = find_interval(drawn[metric])
        yield GroupRow(own.name, metric, group.values, count, value, low, high, None)


def find_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns the middle 95 % of values; None where all are equal."""
    known = [value for value in values if isfinite(value)]
    # a share of 0 or 1 is that in each draw, which says nothing of other rows
    if len(set(known)) < 2:
        return None, None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
