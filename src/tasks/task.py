"""A task: what is learnt from one label, from its head to its metrics.

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
from torchmetrics import Metric, MetricCollection

from src.errors import UserError
from src.tasks.head import Head

MISSING = -100  # the missing label in integer targets; NaN is the one in float targets

Label = str | int | float | bool

# a task's loss is logged beside its metrics, and counts and scores are among them
RESERVED = ("loss", "count", "scores")


def labelled(targets: Tensor) -> Tensor:
    """Returns where a label is known: bool, the shape of ``targets``."""
    return ~targets.isnan() if targets.is_floating_point() else targets != MISSING


def classes_as_integers(targets: Tensor) -> Tensor:
    """Float 0/1 targets with NaN for missing, as integers with ``MISSING``: the form that torchmetrics can ignore."""
    return torch.where(targets.isnan(), MISSING, targets).long()


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...] | float, like: tuple[torch.device, torch.dtype]) -> Tensor:
    """A small constant on the device where it is used, made once."""
    with torch.inference_mode(
        False
    ):  # made in an evaluation, it must still serve in a backward pass
        return torch.tensor(values, device=like[0], dtype=like[1])


def pairs(targets: Tensor) -> list[tuple[Any, Any]]:
    """Labels one by one, each with whether it is known."""
    return list(zip(targets.tolist(), labelled(targets).tolist(), strict=True))


class BadLabel(UserError):
    """A label that a task cannot have; ``row`` counts from 0 in the values given."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def known(values: np.ndarray) -> np.ndarray:
    """Returns where labels as read are known: bool, the shape of ``values``."""
    if values.dtype.kind == "f":
        return ~np.isnan(values)
    if values.dtype.kind != "O":
        return np.ones(values.shape, dtype=bool)
    import pandas as pd  # half a second to import: only where labels are read

    return cast(np.ndarray, pd.notna(values))


def as_numbers(values: np.ndarray) -> np.ndarray:
    """Labels as read -> float64 with NaN for missing ones.

    Raises:
        BadLabel: A label that is no finite number.
    """
    mask, numbers = known(values), np.full(values.shape, np.nan)
    try:
        numbers[mask] = values[mask].astype(np.float64)
    except (TypeError, ValueError):
        for index in np.argwhere(mask):
            try:
                float(values[tuple(index)])
            except (TypeError, ValueError):
                raise BadLabel(
                    int(index[0]), f"holds {values[tuple(index)]!r} where a number is expected"
                ) from None
    if np.isinf(numbers).any():
        index = np.argwhere(np.isinf(numbers))[0]
        raise BadLabel(int(index[0]), f"holds {numbers[tuple(index)]}; targets must be finite")
    return numbers


def position_in(classes: Sequence[Label], values: np.ndarray) -> np.ndarray:
    """Labels as read -> positions in ``classes``, ``MISSING`` where missing.

    Raises:
        BadLabel: A label that is none of the classes.
    """
    import pandas as pd  # half a second to import: only where labels are read

    place = {label: i for i, label in enumerate(classes)}
    codes, uniques = pd.factorize(values.ravel())
    found = [place.get(label, -1) for label in uniques]
    # a code of -1 is a missing label, the last one of the look-up
    positions = np.array([*found, MISSING], dtype=np.int64)[codes].reshape(values.shape)
    if (positions == -1).any():
        index = np.argwhere(positions == -1)[0]
        shown = ", ".join(map(str, classes[:8])) + (", ..." if len(classes) > 8 else "")
        raise BadLabel(
            int(index[0]),
            f"holds the class '{values[tuple(index)]}', which the training labels ({shown}) do not have",
        )
    return positions


def distinct(values: np.ndarray) -> tuple[Label, ...]:
    """The known labels without repeats, in order (numbers by size, words by alphabet)."""
    import pandas as pd  # half a second to import: only where labels are read

    uniques = pd.unique(values[known(values)].ravel())
    found = [v.item() if isinstance(v, np.generic) else v for v in uniques]
    return tuple(sorted(found, key=lambda v: (isinstance(v, str), v)))


def hashable(value: Any) -> Hashable:
    """Returns a value as a key: lists, dictionaries and tensors by what they hold, what has no hash as itself."""
    if isinstance(value, Tensor | np.ndarray):
        return (tuple(value.shape), hashable(value.tolist()))
    if isinstance(value, list | tuple):
        return tuple(hashable(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, hashable(item)) for key, item in sorted(value.items(), key=repr))
    try:
        hash(value)
    except TypeError:
        return id(value)
    return cast(Hashable, value)


WORDS = {"auroc": "AUROC", "f1": "F1", "mae": "MAE", "rmse": "RMSE", "r2": "R2"}


def in_words(metric: str) -> str:
    """Returns a metric's name as people write it."""
    return WORDS.get(metric, metric.replace("_", " "))


class LabelCount(Metric):
    """Counts known labels per class and output, so that a metric with nothing to measure is reported as NaN, not as 0."""

    full_state_update = False
    counts: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Adds ``counts``, of the shape given at the start."""
        self.counts += counts

    def compute(self) -> Tensor:
        """Returns the counts over all batches and ranks."""
        return self.counts


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Base of all task kinds: a frozen description that builds the parts a model needs.

    Attributes:
        weight: Fixed weight of this task's loss.
        depth: Hidden layers of the head; 0 is a linear head.
        width: Width of the hidden layers.
        monitor: The metric that counts for model selection.

    A class that defines ``losses`` may list in ``not_in_loss`` which fields that method does not
    read: tasks that differ in those alone are computed together. Without the list every field
    counts, see :meth:`loss_key`.
    """

    event_dims: ClassVar[int] = (
        0  # trailing target dimensions that belong to one label: 0 scalar, 1 vector
    )
    likelihood: ClassVar[str] = (
        "categorical"  # whose negative logarithm the loss is, up to a scale: or gaussian, laplace
    )
    minimised: ClassVar[tuple[str, ...]] = ()  # metrics of which less is better
    metric_names: ClassVar[tuple[str, ...]] = ()
    set_by_validation: ClassVar[
        tuple[str, ...]
    ] = ()  # fields that a validation sets where nobody has

    weight: float = 1.0
    depth: int = 0
    width: int = 64
    monitor: str

    def __post_init__(self) -> None:
        for metric in self.metric_names:
            if metric in RESERVED or "/" in metric:
                raise UserError(
                    f"{type(self).__name__}: a metric cannot be named '{metric}', since "
                    f"{', '.join(RESERVED)} have a meaning already and '/' separates keys: rename it"
                )
        if self.monitor not in self.metric_names:
            raise UserError(
                f"{type(self).__name__}: monitor '{self.monitor}' is none of {', '.join(self.metric_names)}"
            )
        if self.weight < 0:
            raise UserError(
                f"{type(self).__name__}: weight {self.weight} is negative; weights start at 0"
            )
        if self.depth < 0 or self.width < 1:
            raise UserError(
                f"{type(self).__name__}: depth {self.depth} and width {self.width} must be at least 0 and 1"
            )

    # -- labels as people write them ---------------------------------------------------------------
    @abstractmethod
    def fit(self, values: np.ndarray, names: Sequence[str]) -> Self:
        """Returns the task with its label space learnt from training labels; what was set by hand stays.

        Args:
            values: (N,) or (N, L) labels as read, None or NaN where missing; at least one is known.
            names: One name per column of ``values``.

        Raises:
            BadLabel: A label that this kind of task cannot have.
        """

    @abstractmethod
    def encode(self, values: np.ndarray) -> Tensor:
        """Labels as read -> targets, missing ones marked as :func:`labelled` expects.

        Raises:
            BadLabel: A label outside the label space.
        """

    # -- the head ----------------------------------------------------------------------------------
    @property
    @abstractmethod
    def out_features(self) -> int:
        """Width O of the head's output."""

    def head(self, features: int) -> Head:
        """Builds the head: (..., features) -> (..., O)."""
        return Head(features, self.out_features, depth=self.depth, width=self.width)

    # -- the loss ----------------------------------------------------------------------------------
    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Unreduced losses, 0 where the label is missing.

        Args:
            outputs: (..., O), fp32.
            targets: (...) or, with one event dimension, (..., O).

        Returns:
            The shape of ``targets``.
        """

    def loss_key(self) -> tuple[Hashable, ...]:
        """Returns what :meth:`losses` may read: tasks with equal keys share one loss computation.

        That is every field but ``weight``, ``monitor`` and the ``not_in_loss`` of the class that
        defines ``losses``: what one class's loss leaves alone, a loss that replaces it may read.
        """
        owner = next(kind for kind in type(self).__mro__ if "losses" in vars(kind))
        unread = {"weight", "monitor", *vars(owner).get("not_in_loss", ())}
        read = [
            (field.name, hashable(getattr(self, field.name)))
            for field in fields(self)
            if field.name not in unread
        ]
        return (type(self), self.out_features, self.event_dims, *read)

    # -- metrics -----------------------------------------------------------------------------------
    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Builds fresh metrics, one per name in ``metric_names``, and what :meth:`compute` needs besides."""

    @abstractmethod
    def measured(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """What the metrics' ``update`` takes, by argument name: ``preds``, ``target`` and the ``counts`` of known labels.

        Args:
            outputs: (B, ..., O), fp32.
            targets: (B, ...); elements whose label is missing do not count.
        """

    @abstractmethod
    def undefined(self, counts: Tensor) -> set[str]:
        """Names the metrics that have no value for these label counts (AUROC of a single class, R2 of one sample ...)."""

    def compute(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """Values over all batches and ranks, as scalars; NaN where the labels do not define one."""
        counts = metrics["count"].compute()
        return {name: self.scalar(value, counts) for name, value in self.values(metrics).items()}

    def values(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """The same before they become one number: (L,) where each label, class or output has a value of its own."""
        nan = torch.tensor(float("nan"))
        undefined = self.undefined(metrics["count"].compute())
        if undefined >= set(self.metric_names):
            return dict.fromkeys(self.metric_names, nan)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="No (positive|negative) samples"
            )  # those become NaN here
            found = self.derived(metrics.compute())
        return {name: nan if name in undefined else found[name] for name in self.metric_names}

    def derived(self, computed: dict[str, Any]) -> dict[str, Any]:
        """Completes what the metrics have computed by what follows from it."""
        return computed

    def scalar(self, value: Tensor, counts: Tensor) -> Tensor:
        """Reduces a metric's value to one number: the mean over the labels, classes or outputs for which it is defined."""
        return value.nanmean().float() if value.ndim else value.float()

    def per_output(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """Values that are logged one by one besides, by '<metric>/<label>'; none unless a setting asks for them."""
        return {}

    # -- model selection ---------------------------------------------------------------------------
    def score(self, values: Mapping[str, Tensor | float]) -> float:
        """The value that counts for model selection, higher is better."""
        value = float(values[self.monitor])
        return -value if self.monitor in self.minimised else value

    def in_score(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """Values that :meth:`score` takes in place of those reported; none unless a kind says otherwise."""
        return {}

    def score_in_words(self) -> str:
        """Says what :meth:`score` returns, in a few words."""
        return (
            f"minus {in_words(self.monitor)}"
            if self.monitor in self.minimised
            else in_words(self.monitor)
        )

    # -- what validation chooses -------------------------------------------------------------------
    def chosen(self, metrics: MetricCollection) -> Self:
        """Returns the task with the fields in ``set_by_validation`` as metrics of validation rows say.

        What was set by hand stays.
        """
        return self

    def as_chosen(self, described: Mapping[str, Any]) -> Self:
        """Returns the task with the fields in ``set_by_validation`` as a checkpoint describes it.

        What was set by hand stays.
        """
        chosen: dict[str, Any] = {}
        for key in self.set_by_validation:
            value = described.get(key)
            if getattr(self, key) is None and value is not None:
                chosen[key] = tuple(value) if isinstance(value, list) else value
        return replace(self, **chosen) if chosen else self

    def choice_in_words(self, name: str) -> str | None:
        """Says which thresholds a task of that name decides by, where it decides by any."""
        return None

    # -- people ------------------------------------------------------------------------------------
    @abstractmethod
    def decode(self, outputs: Tensor) -> dict[str, Any]:
        """Outputs (B, O) for people: {suffix of the column's name: B values}; the suffix '' is the prediction itself."""

    def readable(self, targets: Tensor) -> dict[str, Any]:
        """Labels (B, ...) for people, None where missing: {suffix of the column's name: B values}, as ``decode`` has them."""
        return {"": [value if known else None for value, known in pairs(targets)]}

    def describe(self) -> dict[str, Any]:
        """Plain values that identify the task in a checkpoint or a schema: its class path and settings."""
        return {"kind": f"{type(self).__module__}.{type(self).__name__}", **asdict(self)}
