"""Classes and labels with few rows, of any data whose tasks have some."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from src.data.audit.finding import Finding, Mend, list_few
from src.data.rows import Split
from src.tasks import MultilabelClassification, Task

FEWEST = 3  # training labels of a class before its absence elsewhere is worth a word
FEW = 10  # training labels of a class that are hard to learn from
SIDES: tuple[Split, ...] = ("val", "test")


def find_lacking_classes(
    tasks: Mapping[str, Task],
    targets: Mapping[Split, Mapping[str, Tensor]],
    mends: Mapping[str, Mend],
) -> list[Finding]:
    """Finds classes without a validation or test row, whose scores are not defined.

    A class with very few training rows is not worth a word.

    Args:
        tasks: The tasks.
        targets: {split: {task: labels}}.
        mends: {task: what deals its classes out in proportion}.
    """
    findings = []
    for side in SIDES:
        lacking: dict[str, list[str]] = {}
        for name, task in tasks.items():
            classes = list_classes(task)
            trained = count_labels(task, targets["train"].get(name))
            there = count_labels(task, targets[side].get(name))
            pairs = zip(classes, trained, there, strict=True)
            absent = [label for label, n, k in pairs if n >= FEWEST and not k]
            if absent:
                lacking[name] = absent
        if not lacking:
            continue
        name, labels = next(iter(lacking.items()))
        others = len(lacking) - 1
        more = ""
        if others:
            more = f" (nor of classes of {others} other task{'s' if others > 1 else ''})"
        sentence = (
            f"no {side} row of '{name}' is of {', '.join(labels[:5])}{more}: "
            "some scores are not defined"
        )
        findings.append(Finding("medium", "classes", sentence, mends.get(name), (name,)))
    return findings


def find_rare_classes(
    tasks: Mapping[str, Task], targets: Mapping[Split, Mapping[str, Tensor]]
) -> list[Finding]:
    """Finds classes with so few training rows that they are hardly learnt.

    Args:
        tasks: The tasks.
        targets: {split: {task: labels}}.
    """
    findings = []
    for name, task in tasks.items():
        classes = list_classes(task)
        counts = count_labels(task, targets["train"].get(name))
        # a class without any is one that stands for labels of other rows
        rare = [label for label, n in zip(classes, counts, strict=True) if 0 < n < FEW]
        if not rare:
            continue
        few = int(min(n for n in counts if n))
        verb = "have" if len(rare) > 1 else "has"
        noun = "classes" if len(rare) > 1 else "class"
        sentence = f"{noun} {list_few(rare)} of '{name}' {verb} fewer than {FEW} training rows"
        findings.append(Finding("low", "classes", sentence, None, (name,), value=few))
    return findings


def list_classes(task: Task) -> list[str]:
    """Returns the classes of a task, or the labels of a multi-label one; none of a number."""
    names = getattr(task, "classes", ()) or getattr(task, "labels", ())
    return [str(name) for name in names]


def count_labels(task: Task, targets: Tensor | None) -> np.ndarray:
    """Returns the number of labels of each class (C,), or of rows that have each label (L,).

    Args:
        task: The task.
        targets: Its labels; None where there are none.
    """
    size = len(list_classes(task))
    if targets is None or not size:
        return np.zeros(size, dtype=np.int64)
    numbers = targets.double().nan_to_num(-1)
    if isinstance(task, MultilabelClassification):
        counts: np.ndarray = (numbers == 1).sum(0).numpy()
        return counts
    flat = numbers.flatten().numpy().astype(int)
    return np.bincount(flat[flat >= 0], minlength=size)[:size]
