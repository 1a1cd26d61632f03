"""Rates of decisions: how often each of two answers is given, and how often wrongly."""

from dataclasses import dataclass

import torch
from torch import Tensor

from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Task,
    is_labelled,
)

RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")
FEWEST_OF_CLASS = 10  # rows with the label that a rate is a share of
MOST_CLASSES = 12  # a task with more has no rates: they would be too many to read


@dataclass(frozen=True)
class Decisions:
    """Answers to one question of yes or no, beside the truth.

    Attributes:
        suffix: What tells them from others of the same task: '.<label>', or '' where there is one.
        yes: (N,) Whether the answer is yes.
        true: (N,) Whether it should be.
        known: (N,) Whether the label is known.
    """

    suffix: str
    yes: Tensor
    true: Tensor
    known: Tensor

    def name(self, metric: str) -> str:
        """Returns the name of a metric of these decisions."""
        return f"{metric}{self.suffix}"

    def compute(self, rows: Tensor, weights: Tensor | None) -> dict[str, float]:
        """Computes the rates over some rows, NaN where no label defines them.

        P(yes), P(yes | true) and P(yes | not true): equal in all groups, the first one is
        demographic parity, and the others are equalized odds (Hardt, Price and Srebro, "Equality
        of opportunity in supervised learning", NeurIPS 2016).

        Args:
            rows: (M,) places of rows, which may come several times.
            weights: (N,) the weights of all rows; None weighs all alike.
        """
        known = self.known[rows]
        own = known.double() if weights is None else known * weights[rows].double()
        yes = own * self.yes[rows]
        true = self.true[rows]
        shares = (
            (yes.sum(), own.sum()),
            ((yes * true).sum(), (own * true).sum()),
            ((yes * ~true).sum(), (own * ~true).sum()),
        )
        found = {}
        for metric, (part, whole) in zip(RATES, shares, strict=True):
            found[self.name(metric)] = float(part / whole) if whole > 0 else float("nan")
        return found

    def find_notes(self, rows: Tensor) -> dict[str, str]:
        """Returns {metric: why these rows do not tell it}."""
        true = self.true[rows][self.known[rows]]
        notes = {}
        counts = (
            ("true_positive_rate", "positive", true),
            ("false_positive_rate", "negative", ~true),
        )
        for metric, word, own in counts:
            count = int(own.sum())
            if count < FEWEST_OF_CLASS:
                notes[self.name(metric)] = f"{count or 'no'} {word} label{'s' * (count != 1)}"
        return notes


def collect_decisions(
    task: Task, outputs: Tensor, targets: Tensor, decided: Tensor | None = None
) -> list[Decisions]:
    """Returns the decisions of a task: one question, or one for each label or class.

    Args:
        task: The task, with the thresholds that decide.
        outputs: (N, O).
        targets: (N,), or (N, L) for several labels.
        decided: (N,) Whether a binary task says yes, where other thresholds decide.
    """
    known = is_labelled(targets)
    if isinstance(task, BinaryClassification) and targets.ndim == 1:
        yes = task.predict(outputs) if decided is None else decided
        return [Decisions("", yes, targets == 1, known)]
    if isinstance(task, MultilabelClassification) and targets.ndim == 2:
        if len(task.labels) > MOST_CLASSES:
            return []
        columns = zip(task.labels, task.predict(outputs).T, targets.T, known.T, strict=True)
        return [Decisions(f".{label}", yes, own == 1, seen) for label, yes, own, seen in columns]
    # labels of each token or pixel have more dimensions, and are no decisions on a row
    if isinstance(task, Classification) and targets.ndim == 1 and len(task.classes) <= MOST_CLASSES:
        chosen = task.predict(outputs)
        places = enumerate(task.classes)
        return [Decisions(f".{name}", chosen == k, targets == k, known) for k, name in places]
    return []


def to_logits(decided: Tensor) -> Tensor:
    """Returns outputs (N, 1) that a binary task with a threshold of 0.5 decides so."""
    return torch.where(decided, 1.0, -1.0)[:, None]
