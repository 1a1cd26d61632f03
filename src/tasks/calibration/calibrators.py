"""Maps from a task's outputs to outputs whose probabilities or quantiles come true.

A calibrator is fitted on validation rows after training, changes outputs alone, and never their
meaning: logits stay logits, so that losses, metrics and decoding are those of any outputs. Each one
is a pure function of tensors, which ``torch.export`` can trace.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import exp, log
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from src.errors import UserError
from src.files.typed import Such, find_mismatch
from src.tasks.binary import BinaryClassification
from src.tasks.classification import Classification
from src.tasks.increments import LEAST, invert_softplus, invert_spread, spread_from
from src.tasks.multilabel import MultilabelClassification
from src.tasks.ordinal import Ordinal
from src.tasks.quantiles import Quantiles
from src.tasks.task import Task

SHOWN = 4  # labels in a message
Positive = Annotated[float, Such("above 0", lambda value: value > 0)]


@dataclass(frozen=True)
class Calibrator(ABC):
    """A map from outputs (..., O) to outputs (..., O) of the same meaning."""

    @abstractmethod
    def apply(self, outputs: Tensor) -> Tensor:
        """Returns calibrated outputs (..., O) of the same type; NaN, as at padding, stays NaN."""

    @abstractmethod
    def suits(self, task: Task) -> bool:
        """Returns whether the map is one of this task's outputs."""

    @abstractmethod
    def say(self) -> str:
        """Says in a few words what it does to outputs."""

    def move_thresholds(self, task: Task) -> Task:
        """Returns a task whose thresholds decide calibrated outputs as its own ones the others."""
        return task

    def describe(self) -> dict[str, Any]:
        """Returns plain values, its class under 'kind', which :func:`restore_calibrator` reads."""
        return {"kind": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Temperature(Calibrator):
    """Divides logits by one number for all classes (Guo et al., ICML 2017).

    The most probable class stays the same. Of the potentials of a chain of labels (``crf``), the
    most probable path does.

    Attributes:
        temperature: Above 1 it makes probabilities less extreme.
    """

    temperature: Positive

    def apply(self, outputs: Tensor) -> Tensor:
        return outputs / self.temperature

    def say(self) -> str:
        return f"temperature {self.temperature:.4g}"

    def suits(self, task: Task) -> bool:
        return isinstance(task, Classification) and not isinstance(task, Ordinal)


@dataclass(frozen=True)
class Platt(Calibrator):
    """Turns the logit x of each label into a x + b (Platt, 1999), with a above 0.

    The order of rows stays the same, and with thresholds that are moved along, so do decisions.

    Attributes:
        slopes: a of each label.
        intercepts: b of each label.
    """

    slopes: tuple[Positive, ...]
    intercepts: tuple[float, ...]

    def apply(self, outputs: Tensor) -> Tensor:
        slopes = outputs.new_tensor(self.slopes)
        return outputs * slopes + outputs.new_tensor(self.intercepts)

    def say(self) -> str:
        pairs = list(zip(self.slopes, self.intercepts, strict=True))
        shown = ", ".join(f"{a:.4g} x {b:+.4g}" for a, b in pairs[:SHOWN])
        more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        return f"Platt's scaling of the logit x: {shown}{more}"

    def suits(self, task: Task) -> bool:
        kinds = (BinaryClassification, MultilabelClassification)
        fits = len(self.slopes) == len(self.intercepts) == task.out_features
        return isinstance(task, kinds) and fits

    def move_thresholds(self, task: Task) -> Task:
        """Returns a task with sigmoid(a logit(t) + b) for each threshold t."""
        if isinstance(task, BinaryClassification) and task.threshold is not None:
            (moved,) = self._move((task.threshold,))
            return replace(task, threshold=moved)
        if isinstance(task, MultilabelClassification) and task.thresholds is not None:
            return replace(task, thresholds=self._move(task.thresholds))
        return task

    def _move(self, thresholds: tuple[float, ...]) -> tuple[float, ...]:
        moved = []
        for t, a, b in zip(thresholds, self.slopes, self.intercepts, strict=True):
            # a threshold of 0 takes all rows for positive, before and after
            moved.append(0.0 if t == 0 else squash(a * (log(t) - log(1 - t)) + b))
        return tuple(moved)


@dataclass(frozen=True)
class OrdinalTemperature(Calibrator):
    """Divides the logits of P(y > k), which decrease in k, by one number.

    Whether P(y > k) is above 1/2 stays the same, and so does the median, which is the prediction.

    Attributes:
        temperature: Above 1 it makes probabilities less extreme.
        method: What outputs are, corn or cumulative: see :class:`src.tasks.ordinal.Ordinal`.
    """

    temperature: Positive
    method: Literal["corn", "cumulative"]

    def apply(self, outputs: Tensor) -> Tensor:
        x = outputs.double()
        if self.method == "cumulative":
            gaps = invert_softplus(F.softplus(x[..., 1:]) / self.temperature)
            return torch.cat([x[..., :1] / self.temperature, gaps], -1).to(outputs.dtype)

        # logits of P(y > k), divided, and back to log P(y > k)
        logs = F.logsigmoid(x).cumsum(-1)
        logits = (logs - take_from_one(logs)) / self.temperature
        logs = F.logsigmoid(logits)

        # each output is the logit of P(y > k) / P(y > k - 1)
        before = torch.cat([torch.zeros_like(logs[..., :1]), logs[..., :-1]], -1)
        steps = logs - before
        return (steps - take_from_one(steps)).to(outputs.dtype)

    def say(self) -> str:
        return f"temperature {self.temperature:.4g}"

    def suits(self, task: Task) -> bool:
        return isinstance(task, Ordinal) and task.method == self.method


@dataclass(frozen=True)
class QuantileMap(Calibrator):
    """Reads predicted quantiles at other levels (Kuleshov, Fenner and Ermon, ICML 2018).

    Where a share R(p) of labels lies below the quantile that is predicted for the level p, the
    calibrated quantile of the level t is the predicted one of the level R^-1(t). Between two
    predicted quantiles the quantile function is linear in the level, and beyond the outer ones goes
    on so.

    Attributes:
        levels: The levels t of the task's quantiles.
        read_at: R^-1(t) of each level, increasing; beyond 0 and 1 where the outer quantiles are
            too close to the median.
    """

    levels: tuple[float, ...]
    read_at: tuple[float, ...]

    def apply(self, outputs: Tensor) -> Tensor:
        middle = self.levels.index(0.5)
        values = spread_from(outputs.double(), middle)
        read = values @ self._weights(values).T
        return invert_spread(read, middle).to(outputs.dtype)

    def _weights(self, like: Tensor) -> Tensor:
        """Returns the weights (Q, Q) of predicted quantiles in each calibrated one."""
        rows = []
        last = len(self.levels) - 2
        for level in self.read_at:
            inner = sum(known <= level for known in self.levels) - 1
            k = min(max(inner, 0), last)
            share = (level - self.levels[k]) / (self.levels[k + 1] - self.levels[k])
            row = [0.0] * len(self.levels)
            row[k], row[k + 1] = 1 - share, share
            rows.append(row)
        return like.new_tensor(rows)

    def say(self) -> str:
        pairs = zip(self.levels, self.read_at, strict=True)
        return "levels of quantiles: " + ", ".join(f"{t:g} read at {p:.4g}" for t, p in pairs)

    def suits(self, task: Task) -> bool:
        if not isinstance(task, Quantiles) or len(self.read_at) != len(self.levels):
            return False
        rises = all(a < b for a, b in zip(self.read_at, self.read_at[1:], strict=False))
        return rises and len(self.levels) > 1 and self.levels == task.levels


def take_from_one(logs: Tensor) -> Tensor:
    """Returns log(1 - p) from log p, finite where p is 1 to the last digit."""
    return (-torch.expm1(logs)).clamp(min=LEAST).log()


def squash(logit: float) -> float:
    """Returns the sigmoid of a logit, below 1 as a threshold must be."""
    value = 1 / (1 + exp(-logit)) if logit > -700 else 0.0
    return min(value, 1 - 2**-53)


KINDS: Mapping[str, type[Calibrator]] = {
    kind.__name__: kind for kind in (Temperature, Platt, OrdinalTemperature, QuantileMap)
}


def restore_calibrator(described: Mapping[str, Any], task: Task) -> Calibrator:
    """Returns the calibrator that :meth:`Calibrator.describe` has described.

    Args:
        described: Its kind and its fields, which may come from a stranger.
        task: The task that it shall calibrate.

    Raises:
        UserError: There is no such kind, a value is wrong, or it is one of another task.
    """
    values = dict(described)
    name = values.pop("kind", None)
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise UserError(f"kind is {str(name)[:40]!r}, where one of {', '.join(KINDS)} belongs")
    wrong = find_mismatch(values, kind)
    if wrong is not None:
        raise UserError(wrong)
    fields = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    calibrator = kind(**fields)
    if not calibrator.suits(task):
        raise UserError(f"a {name} of this form is none of a {type(task).__name__}'s outputs")
    return calibrator
