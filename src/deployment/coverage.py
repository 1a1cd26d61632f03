"""Sets and intervals of an exported model, which hold the label with a stated probability."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from src.deployment.decoding import Decoded
from src.tasks import MultilabelClassification, Regression
from src.tasks.calibration.conformal import Conformal, Method


@dataclass(frozen=True)
class Coverage:
    """Turns outputs into sets of classes, and into the ends of intervals.

    Attributes:
        scores: {task: its conformity scores}; a task without any has no such columns.
        probability: The probability with which they hold the label.
        method: lac or aps, of sets.
    """

    scores: Mapping[str, Conformal]
    probability: float
    method: Method

    def decode(self, outputs: Mapping[str, Tensor]) -> dict[str, dict[str, Decoded]]:
        """Returns {task: {suffix: column}} of outputs (B, O), named as ``predict --coverage``."""
        return {name: self.decode_task(name, outputs[name]) for name in self.scores}

    def decode_task(self, name: str, outputs: Tensor) -> dict[str, Decoded]:
        """Returns {suffix: column} of one task's outputs."""
        conformal = self.scores[name]
        task = conformal.task
        found = {}
        if not conformal.makes_sets:
            ends = conformal.interval(outputs, self.probability)
            names = task.names if isinstance(task, Regression) else ()
            std = getattr(task, "std", None) or 1.0
            scales = std if isinstance(std, tuple) else (std,)
            for k, output in enumerate(names or ("",)):
                suffix = f"_{output}" if output else ""
                found[f"low{suffix}"] = Decoded(ends[:, k, 0], scale=scales[k])
                found[f"high{suffix}"] = Decoded(ends[:, k, 1], scale=scales[k])
            return found
        chosen = conformal.sets(outputs, self.probability, self.method)
        if isinstance(task, MultilabelClassification):
            for k, label in enumerate(task.labels):
                found[f"set_{label}"] = Decoded(chosen[:, k], ("0", "1"), is_set=True)
            return found
        words = tuple(str(label) for label in getattr(task, "classes", ()))
        return {"set": Decoded(chosen, words, is_set=True)}
