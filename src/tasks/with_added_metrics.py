"""Metrics that a setting adds to a task, computed on the rows of an evaluation."""

from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from src.errors import UserError
from src.tasks.added_metrics import AddedMetric, MetricSpec
from src.tasks.labels import is_labelled


class WithAddedMetrics:
    """Builds and computes the metrics of a task's ``metrics``; a kind says which rows they see."""

    metric_names: ClassVar[tuple[str, ...]]
    minimised: ClassVar[tuple[str, ...]]
    metrics: tuple[MetricSpec, ...]

    @abstractmethod
    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Returns arguments for the metrics' ``update``, see ``Task``."""

    @cached_property
    def added_metrics(self) -> tuple[AddedMetric, ...]:
        """The metrics of ``metrics``.

        Raises:
            UserError: One of them is no class of a metric.
        """
        if not isinstance(self.metrics, list | tuple):
            raise UserError(
                f"{type(self).__name__}: metrics is '{self.metrics}', where a list is expected: "
                f"[{self.metrics}]"
            )
        try:
            return tuple(AddedMetric.of(spec) for spec in self.metrics)
        except UserError as error:
            raise UserError(f"{type(self).__name__}: {error}") from None

    @property
    def all_metric_names(self) -> tuple[str, ...]:
        """The names of the kind's own metrics, then of the added ones."""
        return (*self.metric_names, *(metric.name for metric in self.added_metrics))

    def metric_settings(self, output: int = 0) -> dict[str, object]:
        """Returns the settings that the task knows of an added metric of one of its outputs."""
        return {}

    def settings_of(self, metric: AddedMetric) -> dict[str, object]:
        """Returns the settings that the task knows of this added metric."""
        return self.metric_settings()

    def collect_rows(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns predictions and labels as added metrics see them, missing labels among them.

        Args:
            outputs: (B, ..., O), fp32.
            targets: (B, ...).

        Returns:
            (N, ...) and (N,), or (N, L) and (N, L) where each output has a value of its own.
        """
        measured = self.measure(outputs, targets)
        return measured["preds"], measured["target"]

    def example_rows(self) -> tuple[Tensor, Tensor] | None:
        """Returns rows as :meth:`collect_rows` does, to try metrics on; None for no trial."""
        return None

    def compute_added_metric(self, metric: AddedMetric, preds: Tensor, target: Tensor) -> Tensor:
        """Computes an added metric on all rows: one number, or one per output (L,)."""
        if target.ndim == 1:
            known = is_labelled(target)
            return metric.value(self.metric_settings(), preds[known], target[known])
        values = []
        for k in range(target.shape[1]):
            known = is_labelled(target[:, k])
            rows = preds[known, k]
            values.append(metric.value(self.metric_settings(k), rows, target[known, k]))
        return torch.stack(values)

    def try_added_metric(self, metric: AddedMetric, preds: Tensor, target: Tensor) -> None:
        """Computes an added metric on example rows.

        Raises:
            UserError: It does not suit this kind of task.
        """
        rows = (preds, target) if target.ndim == 1 else (preds[:, 0], target[:, 0])
        metric.refuse_unfit(type(self).__name__, self.settings_of(metric), *rows)

    def prefers_less(self, metric: str) -> bool:
        """Returns whether a lower value of a metric is better."""
        for added in self.added_metrics:
            if added.name == metric:
                return added.higher_is_better(self.settings_of(added)) is False
        return metric in self.minimised
