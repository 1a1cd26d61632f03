"""The base of all tasks: it describes a label from its head to its metrics.

Shapes: B is the batch, ``...`` any further leading dimensions (K alike tasks side by side, S tokens
of a sequence), O the outputs of one task. Nothing in a task looks at the leading dimensions, so
alike tasks are computed by one call on stacked tensors.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.added_metrics import EvaluationRows, MetricSpec
from src.tasks.distilling import Distilling
from src.tasks.ensembling import Ensembling
from src.tasks.head import Head, PooledHead
from src.tasks.keys import to_key
from src.tasks.labels import pair_with_known
from src.tasks.metric_classes import spell_metric
from src.tasks.with_added_metrics import WithAddedMetrics

# a loss is logged beside a task's metrics; the others are entries of its collection
RESERVED = ("loss", "count", "scores", "rows", "spans")


@lru_cache(maxsize=256)
def make_constant(
    values: tuple[float, ...] | float, like: tuple[torch.device, torch.dtype]
) -> Tensor:
    """Returns a small constant on the device where it is used; each is made once.

    Args:
        values: The numbers.
        like: Device and dtype.
    """
    # made in an evaluation, it must still serve in a backward pass
    with torch.inference_mode(False):
        return torch.tensor(values, device=like[0], dtype=like[1])


@dataclass(frozen=True, kw_only=True)
class Task(Ensembling, Distilling, WithAddedMetrics, ABC):
    """Base of all task kinds: a frozen description that builds the modules a model needs.

    A class that defines ``losses`` may list in ``not_in_loss`` which fields that method does not
    read: tasks that differ in those alone are computed together. Without the list every field
    counts, see :meth:`loss_key`.

    A metric of ``metrics`` is any torchmetrics class. Settings that the task knows (``task``,
    ``num_classes``, ``num_labels``, ``threshold``) are filled in, and ``average`` is the mean over
    classes; what ``init_args`` say counts. It sees the rows whose label is known, over all
    processes at once, and decides by the task's threshold. Of several labels or outputs it is
    computed for each, and the task has the mean. Numbers are in the label's own unit. Values are
    logged as <stage>/<task>/<class name>, and ``monitor`` may name one.

    Rows may have weights. An element's loss then counts times the weight of its row, and the mean
    is over the sum of weights in the global batch. The kinds whose metrics can weigh rows do so
    (:meth:`weighs_metrics`); a metric of ``metrics`` counts all rows alike.

    Attributes:
        weight: Fixed weight of this task's loss.
        depth: Hidden layers of the head; 0 is a linear head.
        width: Width of the hidden layers.
        pooled: Whether the head reads the mean over the tokens, pixels or nodes of a sample, for a
            label of the whole sample where the encoder gives features of each of them.
        where: The binary task whose label must be positive for this task's label to count, or
            task=class of any task with classes; elsewhere this task's label is taken for missing.
        row_weight: The column with the weights of rows in this task's loss and metrics, which a
            table reads; other data modules give weights with their rows.
        monitor: The metric that counts for model selection.
        metrics: Metrics besides the kind's own: names of torchmetrics classes, class paths, or
            {class_path: FBetaScore, init_args: {beta: 2.0, name: F2}}.
    """

    # how the columns of a label are read, the last one for all further columns: as a number, as a
    # class, or as a number that may be a bound, such as >10
    label_forms: ClassVar[tuple[str, ...]] = ("number",)
    # settings that name a column of the label besides its target's, such as an exposure
    column_settings: ClassVar[tuple[str, ...]] = ()
    # trailing target dimensions that belong to one label: 0 for a scalar, 1 for a vector
    event_dims: ClassVar[int] = 0
    # the loss is its negative logarithm, up to a scale: categorical, gaussian or laplace
    likelihood: ClassVar[str] = "categorical"
    # metrics of the kind, and those of them where less is better
    metric_names: ClassVar[tuple[str, ...]] = ()
    minimised: ClassVar[tuple[str, ...]] = ()
    # fields that training labels set, and by which outputs are scaled
    scale_fields: ClassVar[tuple[str, ...]] = ()
    # fields that a validation sets where nobody has
    set_by_validation: ClassVar[tuple[str, ...]] = ()

    weight: float = 1.0
    depth: int = 0
    width: int = 64
    pooled: bool = False
    where: str | None = None
    row_weight: str | None = None
    monitor: str
    metrics: tuple[MetricSpec, ...] = ()

    def __post_init__(self) -> None:
        kind = type(self).__name__
        names = self.all_metric_names
        for metric in names:
            if metric in RESERVED or "/" in metric:
                raise UserError(
                    f"{kind}: a metric cannot be named '{metric}', since {', '.join(RESERVED)} "
                    "have a meaning already and '/' separates keys: rename it"
                )
            if names.count(metric) > 1:
                raise UserError(
                    f"{kind}: two metrics are named '{metric}': give one of them another name in "
                    "its init_args, such as {beta: 2.0, name: F2}"
                )
        if self.monitor not in self.monitors:
            known = ", ".join(self.monitors)
            raise UserError(f"{kind}: monitor '{self.monitor}' is none of {known}")
        if self.weight < 0:
            raise UserError(f"{kind}: weight {self.weight} is negative; weights start at 0")
        if self.depth < 0 or self.width < 1:
            raise UserError(
                f"{kind}: depth {self.depth} and width {self.width} must be at least 0 and 1"
            )

    @property
    def monitors(self) -> tuple[str, ...]:
        """The values that ``monitor`` can have."""
        return self.all_metric_names

    # -- labels as people write them ---------------------------------------------------------------
    @abstractmethod
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        """Returns the task with its label space learnt from training labels; settings stay.

        Args:
            values: (N,) or (N, L) labels as read, None or NaN where missing; at least one is known.
            names: One name per column of ``values``.

        Raises:
            BadLabel: A label that this kind of task cannot have.
        """

    @abstractmethod
    def encode(self, values: np.ndarray) -> Tensor:
        """Turns labels as read into targets, missing ones marked as ``is_labelled`` expects.

        Raises:
            BadLabel: A label outside the label space.
        """

    @property
    def values_per_label(self) -> int:
        """The number L of values that one label has as a target."""
        return self.out_features if self.event_dims else 1

    # -- the head ----------------------------------------------------------------------------------
    @property
    @abstractmethod
    def out_features(self) -> int:
        """Width O of the head's output."""

    @property
    def output_names(self) -> tuple[Hashable, ...]:
        """Names of the outputs: in two tasks of a kind, outputs of one name mean the same."""
        return tuple(range(self.out_features))

    def head(self, features: int) -> Head:
        """Builds the head: (..., features) -> (..., O); of a pooled task (B, ..., features)."""
        kind = PooledHead if self.pooled else Head
        return kind(features, self.out_features, depth=self.depth, width=self.width)

    # -- the loss ----------------------------------------------------------------------------------
    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns unreduced losses, 0 where the label is missing.

        Args:
            outputs: (..., O), fp32.
            targets: (...) or, with one event dimension, (..., L). A label of several values has its
                loss in each of them.

        Returns:
            The shape of ``targets``.
        """

    def loss_key(self) -> tuple[Hashable, ...]:
        """Returns everything that :meth:`losses` may read: tasks with equal keys share one call.

        That is every field but ``weight``, ``monitor``, ``metrics``, ``where``,
        ``row_weight`` and the ``not_in_loss`` of the class that defines ``losses``: a loss that
        replaces it may read what it left alone.
        """
        owner = next(kind for kind in type(self).__mro__ if "losses" in vars(kind))
        unread = {
            "weight",
            "monitor",
            "metrics",
            "where",
            "row_weight",
            *vars(owner).get("not_in_loss", ()),
        }
        read = {field.name: getattr(self, field.name) for field in fields(self)}
        kept = [(name, to_key(value)) for name, value in read.items() if name not in unread]
        return (type(self), self.out_features, self.event_dims, *kept)

    # -- metrics of the kind -----------------------------------------------------------------------
    @abstractmethod
    def build_metrics(self) -> MetricCollection:
        """Builds the kind's own metrics by name, and a LabelCount 'count'.

        A metric that :meth:`derive` needs may stand in place of one that it computes.
        """

    @abstractmethod
    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Returns arguments for the metrics' ``update``: preds, target, counts of known labels.

        Args:
            outputs: (B, ..., O), fp32.
            targets: (B, ...); elements whose label is missing do not count.
        """

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Returns arguments for the metrics' ``update`` that hold the weights of rows.

        The class that defines :meth:`measure` defines this method, too, where its metrics can
        weigh rows; otherwise they count all rows alike.

        Args:
            targets: (B, ...); elements whose label is missing do not count.
            weights: (B,), at least 0.
        """
        return {}

    @property
    def weighs_metrics(self) -> bool:
        """Whether the kind's own metrics weigh rows; added metrics count all rows alike."""
        owner = next(kind for kind in type(self).__mro__ if "measure" in vars(kind))
        return "measure_weights" in vars(owner) and owner is not Task

    @abstractmethod
    def find_undefined(self, counts: Tensor) -> set[str]:
        """Returns the metrics that these label counts do not define, as AUROC of a single class."""

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        """Adds to the values of :meth:`build_metrics` the ones that follow from them."""
        return computed

    def reduce_value(self, value: Tensor, counts: Tensor) -> Tensor:
        """Reduces a metric to one number: its mean over the outputs that define it."""
        return value.nanmean().float() if value.ndim else value.float()

    # -- what an evaluation calls ------------------------------------------------------------------
    def assemble_metrics(self) -> MetricCollection:
        """Builds everything that :meth:`compute` needs, once the added metrics are found to suit.

        Raises:
            UserError: An added metric cannot be computed for this task, or is the ``monitor`` and
                does not say whether more of it is better.
        """
        own = self.build_metrics()
        if not self.added_metrics:
            return own
        example = self.example_rows()
        if example is not None:
            for metric in self.added_metrics:
                self.try_added_metric(metric, *example)
        for metric in self.added_metrics:
            is_better = metric.higher_is_better(self.settings_of(metric))
            if metric.name == self.monitor and is_better is None:
                raise UserError(
                    f"{type(self).__name__}: monitor '{self.monitor}' does not say whether more "
                    "of it is better: choose another, or a subclass that sets higher_is_better"
                )
        return MetricCollection(
            {**dict(own.items()), "rows": EvaluationRows()}, compute_groups=False
        )

    def update_metrics(
        self,
        metrics: MetricCollection,
        outputs: Tensor,
        targets: Tensor,
        weights: Tensor | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            metrics: The collection of :meth:`assemble_metrics`.
            outputs: (B, ..., O), fp32.
            targets: (B, ...).
            weights: (B,) weights of the rows; None weighs all alike.
        """
        arguments = self.measure(outputs, targets)
        if weights is not None and self.weighs_metrics:
            arguments |= self.measure_weights(targets, weights)
        if "rows" in metrics:
            rows, labels = self.collect_rows(outputs, targets)
            arguments |= {"rows": rows, "labels": labels}
        metrics.update(**arguments)

    def compute(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """Returns values over all batches and ranks, as scalars; NaN where labels define none."""
        counts = metrics["count"].compute()
        values = self.compute_values(metrics)
        return {name: self.reduce_value(value, counts) for name, value in values.items()}

    def compute_values(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """Returns values that are not reduced yet: (L,) where each output has one of its own."""
        nan = torch.tensor(float("nan"))
        undefined = self.find_undefined(metrics["count"].compute())
        if undefined >= set(self.metric_names):
            return dict.fromkeys(self.all_metric_names, nan)
        with warnings.catch_warnings():
            # these become NaN here
            warnings.filterwarnings("ignore", message="No (positive|negative) samples")
            found = self.derive(metrics.compute())
        values = {name: nan if name in undefined else found[name] for name in self.metric_names}
        if self.added_metrics:
            rows = cast(EvaluationRows, metrics["rows"]).read()
            for metric in self.added_metrics:
                values[metric.name] = (
                    nan if rows is None else self.compute_added_metric(metric, *rows)
                )
        return values

    def compute_per_output(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """Returns values to log besides, by '<metric>/<label>'; none unless a setting asks."""
        return {}

    # -- model selection ---------------------------------------------------------------------------
    def score(self, values: Mapping[str, Tensor | float]) -> float:
        """Returns the value that counts for model selection; higher is better."""
        value = float(values[self.monitor])
        return -value if self.prefers_less(self.monitor) else value

    def bound_for_score(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """Returns values that :meth:`score` takes in place of the reported ones; mostly none."""
        return {}

    def describe_score(self) -> str:
        """Says what :meth:`score` returns, in a few words."""
        metric = spell_metric(self.monitor)
        return f"minus {metric}" if self.prefers_less(self.monitor) else metric

    # -- what validation chooses -------------------------------------------------------------------
    def choose(self, metrics: MetricCollection) -> Self:
        """Returns the task with the fields in ``set_by_validation`` chosen on validation rows.

        What was set by hand stays.
        """
        return self

    def restore_choice(self, described: Mapping[str, Any]) -> Self:
        """Returns the task with the fields in ``set_by_validation`` as a checkpoint describes them.

        What was set by hand stays.
        """
        chosen: dict[str, Any] = {}
        for key in self.set_by_validation:
            value = described.get(key)
            if getattr(self, key) is None and value is not None:
                chosen[key] = tuple(value) if isinstance(value, list) else value
        return replace(self, **chosen) if chosen else self

    def describe_choice(self, name: str) -> str | None:
        """Says which thresholds decide for a task of that name; None where it has no threshold."""
        return None

    # -- people ------------------------------------------------------------------------------------
    @abstractmethod
    def decode(self, outputs: Tensor) -> dict[str, Any]:
        """Turns outputs (B, O) into {suffix of the column's name: B values}.

        The suffix '' is the prediction itself.
        """

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        """Turns targets (B, ...) into columns as ``decode`` names them, None where missing."""
        return {"": [value if known else None for value, known in pair_with_known(targets)]}

    def describe(self) -> dict[str, Any]:
        """Returns plain values that identify the task in a checkpoint or a schema.

        They are its class path under 'kind', and its settings.
        """
        settings = asdict(self)
        del settings["metrics"]
        if self.added_metrics:
            settings["metrics"] = [metric.describe() for metric in self.added_metrics]
        return {"kind": f"{type(self).__module__}.{type(self).__name__}", **settings}
