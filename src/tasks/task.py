"""A task: what is learnt from one label, from its head to its metrics.

Shapes: B is the batch, ``...`` any further leading dimensions (K alike tasks side by side, S tokens of a sequence), O the outputs
of one task. Nothing in a task looks at the leading dimensions, so alike tasks are computed by one call on stacked tensors.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from src.tasks.head import Head

MISSING = -100  # the missing label in integer targets; NaN is the one in float targets

Label = str | int | float | bool


def labelled(targets: Tensor) -> Tensor:
    """Returns where a label is known: bool, the shape of ``targets``."""
    return ~targets.isnan() if targets.is_floating_point() else targets != MISSING


def classes_as_integers(targets: Tensor) -> Tensor:
    """Float 0/1 targets with NaN for missing, as integers with ``MISSING``: the form that torchmetrics can ignore."""
    return torch.where(targets.isnan(), MISSING, targets).long()


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...] | float, like: tuple[torch.device, torch.dtype]) -> Tensor:
    """A small constant on the device where it is used, made once."""
    with torch.inference_mode(False):  # made in an evaluation, it must still serve in a backward pass
        return torch.tensor(values, device=like[0], dtype=like[1])


class BadLabel(ValueError):
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
    return np.frompyfunc(lambda v: v is not None and v == v, 1, 1)(values).astype(bool)


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
                raise BadLabel(int(index[0]), f"holds {values[tuple(index)]!r} where a number is expected") from None
    if np.isinf(numbers).any():
        index = np.argwhere(np.isinf(numbers))[0]
        raise BadLabel(int(index[0]), f"holds {numbers[tuple(index)]}; targets must be finite")
    return numbers


def position_in(classes: Sequence[Label], values: np.ndarray) -> np.ndarray:
    """Labels as read -> positions in ``classes``, ``MISSING`` where missing.

    Raises:
        BadLabel: A label that is none of the classes.
    """
    place = {label: i for i, label in enumerate(classes)}
    positions = np.full(values.shape, MISSING, dtype=np.int64)
    for index in np.argwhere(known(values)):
        value = values[tuple(index)]
        if value not in place:
            shown = ", ".join(map(str, classes[:8])) + (", ..." if len(classes) > 8 else "")
            raise BadLabel(int(index[0]), f"holds the class '{value}', which the training labels ({shown}) do not have")
        positions[tuple(index)] = place[value]
    return positions


def distinct(values: np.ndarray) -> tuple[Label, ...]:
    """The known labels without repeats, in order (numbers by size, words by alphabet)."""
    found = {v.item() if isinstance(v, np.generic) else v for v in values[known(values)].flat}
    return tuple(sorted(found, key=lambda v: (isinstance(v, str), v)))


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
    """

    event_dims: ClassVar[int] = 0  # trailing target dimensions that belong to one label: 0 scalar, 1 vector
    likelihood: ClassVar[str] = "categorical"  # whose negative logarithm the loss is, up to a scale: or gaussian, laplace
    minimised: ClassVar[tuple[str, ...]] = ()  # metrics of which less is better
    metric_names: ClassVar[tuple[str, ...]] = ()

    weight: float = 1.0
    depth: int = 0
    width: int = 64
    monitor: str

    def __post_init__(self) -> None:
        if self.monitor not in self.metric_names:
            raise ValueError(f"{type(self).__name__}: monitor '{self.monitor}' is none of {', '.join(self.metric_names)}")
        if self.weight < 0:
            raise ValueError(f"{type(self).__name__}: weight {self.weight} is negative; weights start at 0")
        if self.depth < 0 or self.width < 1:
            raise ValueError(f"{type(self).__name__}: depth {self.depth} and width {self.width} must be at least 0 and 1")

    # -- labels as people write them ---------------------------------------------------------------------------------------------
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

    # -- the head ---------------------------------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def out_features(self) -> int:
        """Width O of the head's output."""

    def head(self, features: int) -> Head:
        """Builds the head: (..., features) -> (..., O)."""
        return Head(features, self.out_features, depth=self.depth, width=self.width)

    # -- the loss ---------------------------------------------------------------------------------------------------------------
    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Unreduced losses, 0 where the label is missing.

        Args:
            outputs: (..., O), fp32.
            targets: (...) or, with one event dimension, (..., O).

        Returns:
            The shape of ``targets``.
        """

    def alike(self) -> tuple[Hashable, ...]:
        """Tasks with equal keys share one loss computation, so the key holds all that :meth:`losses` depends on."""
        return (type(self), self.out_features, self.depth, self.width)

    # -- metrics ----------------------------------------------------------------------------------------------------------------
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
        nan = torch.tensor(float("nan"))
        counts = metrics["count"].compute()
        undefined = self.undefined(counts)
        if undefined >= set(self.metric_names):
            return dict.fromkeys(self.metric_names, nan)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No (positive|negative) samples")  # those become NaN here
            values = metrics.compute()
        return {name: nan if name in undefined else self.scalar(values[name], counts) for name in self.metric_names}

    def scalar(self, value: Tensor, counts: Tensor) -> Tensor:
        """Reduces a metric's value to one number; kinds with several outputs average over those that have one."""
        return value.float()

    def score(self, values: Mapping[str, Tensor | float]) -> float:
        """The value that counts for model selection, higher is better."""
        value = float(values[self.monitor])
        return -value if self.monitor in self.minimised else value

    # -- people -----------------------------------------------------------------------------------------------------------------
    @abstractmethod
    def decode(self, outputs: Tensor) -> dict[str, Any]:
        """Outputs (B, O) for people: {suffix of the column's name: B values}; the suffix '' is the prediction itself."""

    def describe(self) -> dict[str, Any]:
        """Plain values that identify the task in a checkpoint or a schema: its class path and settings."""
        return {"kind": f"{type(self).__module__}.{type(self).__name__}", **asdict(self)}
