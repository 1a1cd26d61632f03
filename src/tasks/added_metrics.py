"""Metrics that a setting adds to a task: a class of torchmetrics, or one of the user's own.

A class is given as ``CohenKappa``, as ``mine.metrics.Youden``, or with settings as
``{class_path: FBetaScore, init_args: {beta: 2.0, name: F2}}``. A setting that the task knows, such
as the number of classes, is filled in.
"""

import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from src.errors import UserError, in_one_line
from src.tasks.metric_classes import TaskMetric, find_class, parameters_of, path_of

# the command line holds a class path against Metric before it imports it; no instance is taken,
# since a schema could not describe it
MetricSpec = str | dict[str, Any] | type[Metric] | Metric

# torchmetrics says so and returns 0 where the rows do not define a metric
UNDEFINED = re.compile("No (positive|negative) samples")


class EvaluationRows(TaskMetric):
    """Keeps predictions and labels of an evaluation for :class:`AddedMetric`.

    A metric that is computed from all rows at once does not depend on how they were dealt to
    processes, and can use a threshold that these rows have chosen. It costs memory for the rows.
    """

    rows: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, rows: Tensor, labels: Tensor) -> None:
        """Adds predictions (N, ...) and labels (N, ...), missing ones among them."""
        self.rows.append(rows)
        self.labels.append(labels)

    def compute(self) -> tuple[Tensor, Tensor] | None:
        """Returns predictions and labels of all batches and processes; None before the first."""
        if not len(self.rows):
            return None
        return dim_zero_cat(self.rows), dim_zero_cat(self.labels)

    def read(self) -> tuple[Tensor, Tensor] | None:
        """Returns the result of :meth:`compute` in its own shape.

        torchmetrics makes scalars of its tensors where there is a single row.
        """
        found = self.compute()
        if found is None:
            return None
        rows, labels = found
        return rows.view(-1, *self.rows[0].shape[1:]), labels.view(-1, *self.labels[0].shape[1:])


@dataclass(frozen=True)
class AddedMetric:
    """A class of metric, and the settings that it was given.

    Attributes:
        kind: The class.
        settings: Arguments of its constructor, by name.
        name: The name that values are logged under: <stage>/<task>/<name>.
    """

    kind: type[Metric]
    settings: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @classmethod
    def of(cls, spec: object) -> "AddedMetric":
        """Reads a metric as a user gives it.

        Args:
            spec: A name, a class path, a class, or one of these with settings, as
                {class_path, init_args}.

        Raises:
            UserError: It is none of these, or no such class is known.
        """
        settings: dict[str, Any] = {}
        kind: object = spec
        if isinstance(spec, dict):
            beside = [key for key in spec if key not in ("class_path", "init_args")]
            if beside or "class_path" not in spec:
                raise UserError(
                    f"metrics has {spec}, where class_path and init_args are expected, such as "
                    "{class_path: FBetaScore, init_args: {beta: 2.0}}"
                )
            kind = spec["class_path"]
            settings = dict(spec.get("init_args") or {})
        if isinstance(kind, str):
            kind = find_class(kind)
        if not (inspect.isclass(kind) and issubclass(kind, Metric)):
            raise UserError(
                f"metrics has {spec!r}, where a metric's class is expected, by its name, or as "
                "class_path with init_args"
            )
        parameters = parameters_of(kind)
        name = kind.__name__
        if "name" in settings and "name" not in parameters:
            name = str(settings.pop("name"))
        for key, value in settings.items():
            # YAML's 2 is no float, as torchmetrics demands
            if type(value) is int and parameters.get(key) in (float, "float"):
                settings[key] = float(value)
        return cls(kind, settings, name)

    def takes(self, setting: str) -> bool:
        """Returns whether the constructor has a parameter of this name."""
        return setting in parameters_of(self.kind)

    def build(self, known: Mapping[str, object]) -> Metric:
        """Builds the metric.

        Args:
            known: Settings that the task knows. One that the class does not take, or that was
                given by hand, is left out.
        """
        parameters = parameters_of(self.kind)
        filled_in = {key: value for key, value in known.items() if key in parameters}
        metric = self.kind(**filled_in | dict(self.settings))
        # every process holds all rows: there is nothing to add up
        metric.sync_on_compute = False
        return metric

    def builds(self, known: Mapping[str, object]) -> bool:
        """Returns whether the class can be built with these settings."""
        try:
            self.build(known)
        except (TypeError, ValueError):
            return False
        return True

    def compute(self, known: Mapping[str, object], preds: Tensor, target: Tensor) -> object:
        """Returns the metric's value on rows whose labels are known, as the class returns it."""
        metric = self.build(known).to(preds.device)
        if target.is_floating_point():
            # fp32 has no digits left for the error of a price near 1e9
            metric.set_dtype(target.dtype)
        metric.update(preds, target)
        return metric.compute()

    def value(self, known: Mapping[str, object], preds: Tensor, target: Tensor) -> Tensor:
        """Returns the metric as one number; NaN where these rows do not define it.

        Args:
            known: Settings that the task knows.
            preds: Predictions (N, ...) of rows whose labels are known.
            target: Their labels (N, ...).
        """
        undefined = torch.tensor(float("nan"), device=target.device)
        if not len(target):
            return undefined
        try:
            with warnings.catch_warnings(record=True) as raised:
                warnings.simplefilter("always")
                value = self.compute(known, preds, target)
            if any(UNDEFINED.match(str(warning.message)) for warning in raised):
                return undefined
            # a vector comes of an `average` that says so, see refuse_unfit
            return torch.as_tensor(value, device=target.device).float().nanmean()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # the class has been tried on example rows: it is these rows that do not suit it
            rank_zero_warn(f"metric {self.name} is not defined here: {in_one_line(error)}")
            return undefined

    def refuse_unfit(
        self, kind: str, known: Mapping[str, object], preds: Tensor, target: Tensor
    ) -> None:
        """Computes the metric on example rows.

        Args:
            kind: The kind of task, for the message.
            known: Settings that the task knows.
            preds: Predictions.
            target: Labels.

        Raises:
            UserError: The class cannot be built or computed, or its value is not one number.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = self.compute(known, preds, target)
        except Exception as error:
            raise UserError(
                f"{kind}: metric {self.name} cannot be computed: {in_one_line(error)}"
            ) from error
        if isinstance(value, Tensor) and value.numel() == 1:
            return
        if isinstance(value, Tensor) and value.ndim == 1 and "average" in self.settings:
            return
        way_out = ""
        if isinstance(value, Tensor) and value.ndim == 1 and self.takes("average"):
            way_out = "; set average in its init_args"
        raise UserError(
            f"{kind}: metric {self.name} gives {in_words(value)}, where one number is expected"
            f"{way_out or '; choose another'}"
        )

    def higher_is_better(self, known: Mapping[str, object]) -> bool | None:
        """Returns whether a higher value is better; None where the class does not say."""
        return self.build(known).higher_is_better

    def describe(self) -> dict[str, Any]:
        """Returns the metric as a setting gives it, with the full path of its class."""
        settings = dict(self.settings)
        if self.name != self.kind.__name__:
            settings["name"] = self.name
        return {"class_path": path_of(self.kind), "init_args": settings}


def in_words(value: object) -> str:
    """Says what a metric has returned."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
