"""Reweighing: weights that make labels independent of groups."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from src.batch import PADDING, Batch
from src.errors import UserError
from src.models.fairness.base import Fairness, read_codes
from src.models.fairness.training_rows import read_training_rows, split_columns
from src.tasks import (
    BinaryClassification,
    Classification,
    Segmentation,
    SequenceLabelling,
    Task,
    is_labelled,
)

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class Reweighting(Fairness):
    """Weighs a row by P(g) P(y) / P(g, y) of its group g and label y, for each task by itself.

    (Kamiran and Calders, "Data preprocessing techniques for classification without discrimination",
    KAIS 2012.) The shares are those of the training rows, so that groups and labels would be
    independent in the weighted rows. Weights that rows have already are multiplied. Validation and
    test rows keep theirs, and so do tasks without classes or with several labels a row.

    Args:
        tasks: {name: task}.
        groups: The names of the groups.
    """

    changes_losses: ClassVar[bool] = False

    def __init__(self, tasks: Mapping[str, Task], groups: Sequence[str]) -> None:
        super().__init__(tasks, groups)
        self.classes = {}
        for name, task in tasks.items():
            if (classes := count_classes(task)) > 0:
                self.classes[name] = classes
        if not self.classes:
            raise UserError(
                "model.fairness Reweighting weighs rows by group and class, and no task has one "
                "class a row: use GroupDRO or DemographicParity"
            )
        # {task: (G, C)}, counted anew by each fit
        self.tables: dict[str, Tensor] = {}

    def prepare(self, model: "MultiTaskModel") -> None:
        """Counts groups and labels of the training rows."""
        rows = read_training_rows(model)
        for name, classes in self.classes.items():
            ((codes, labels, weights),) = split_columns(rows, name)
            cells = codes * classes + labels.long()
            size = len(self.groups) * classes
            counts_GC = cells.bincount(weights, size).view(len(self.groups), classes)
            self.tables[name] = independent_weights(counts_GC).float().to(model.device)

    def weigh_rows(self, batch: Batch) -> None:
        """Multiplies the weights of rows by those of their group and label."""
        codes = read_codes(batch)
        weights = dict(batch.weights)
        for name, table in self.tables.items():
            targets = batch.targets[name]
            known = is_labelled(targets) & (codes >= 0)
            labels = targets.where(known, 0).long()
            own = table[codes.clamp(min=0), labels]
            before = weights.get(name, torch.ones_like(own))
            weighed = torch.where(known, before * own, before)
            weights[name] = weighed.masked_fill(batch.ids == PADDING, 0)
        batch.weights = weights

    def summary(self) -> list[str]:
        """Returns a line on the smallest and the largest weight of each task."""
        parts = []
        for name, table in self.tables.items():
            used = table[table > 0]
            parts.append(f"{name} {float(used.min()):.2f} to {float(used.max()):.2f}")
        return [f"weights of rows by group and label: {', '.join(parts)}"] if parts else []


def count_classes(task: Task) -> int:
    """Returns the number of classes of a task with one label a row; 0 for any other."""
    if isinstance(task, BinaryClassification):
        return 2
    if isinstance(task, Segmentation | SequenceLabelling):
        return 0
    return len(task.classes) if isinstance(task, Classification) else 0


def independent_weights(counts_GC: Tensor) -> Tensor:
    """Returns P(g) P(y) / P(g, y) of each group and class, (G, C); 0 where there is no row."""
    total = counts_GC.sum()
    expected_GC = counts_GC.sum(1, keepdim=True) * counts_GC.sum(0, keepdim=True) / total
    return torch.where(counts_GC > 0, expected_GC / counts_GC.where(counts_GC > 0, 1), 0)
