"""The labels of a table as columns of numbers, for checks that compare them with other columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from src.data.tables.table import Table

MOST_CLASSES = 20  # of a task whose classes are compared one by one


@dataclass(frozen=True)
class LabelColumn:
    """The labels of one task, or of one column of a task with several.

    Attributes:
        name: The name for messages.
        values: (N,) numbers, or positions of classes; NaN where missing.
        numeric: Whether they are numbers, and no classes.
        words: The classes as people write them, by position.
    """

    name: str
    values: np.ndarray
    numeric: bool
    words: tuple[str, ...] = ()

    def list_parts(self) -> list[np.ndarray]:
        """Returns columns of numbers, or of 0 and 1: one for each class of several."""
        known = ~np.isnan(self.values)
        classes = np.unique(self.values[known])
        if self.numeric:
            return [self.values]
        # of two classes, the second says all
        if len(classes) <= 2:
            classes = classes[-1:]
        return [np.where(known, self.values == label, np.nan) for label in classes]


def list_label_columns(table: Table) -> list[LabelColumn]:
    """Returns the labels of all tasks whose labels are numbers or classes."""
    found = []
    for name, task in table.tasks.items():
        targets = table.encode_targets_of("train", name)
        values = targets.double().numpy()
        if not targets.is_floating_point():
            values = np.where(targets.numpy() < 0, np.nan, values)
        words = tuple(str(word) for word in getattr(task, "classes", ()))
        numeric = not table.labels[name].classes and not words
        if values.ndim == 1:
            found.append(LabelColumn(name, values, numeric, words))
        elif values.ndim == 2 and values.shape[1] == len(table.targets[name]):
            # several columns of 0 and 1, or of numbers
            for column, each in zip(table.targets[name], values.T, strict=True):
                found.append(LabelColumn(column, each, not table.labels[name].classes))
    return found
