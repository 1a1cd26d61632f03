"""Rows whose labels follow from those of the tasks that they depend on."""

from collections.abc import Mapping

from torch import Tensor

from src.batch import Batch
from src.data.rows import BatchDataset
from src.tasks import Task
from src.tasks.dependence import check_dependence, has_dependent_labels, resolve_labels


class DependentLabels(BatchDataset):
    """The rows of a data set, with the labels that count, see :func:`resolve_labels`.

    Args:
        rows: The rows, with labels as they are read.
        tasks: {name: task}.
    """

    def __init__(self, rows: BatchDataset, tasks: Mapping[str, Task]) -> None:
        self.rows = rows
        self.tasks = dict(tasks)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows ``ids``."""
        batch = self.rows[ids]
        batch.targets = resolve_labels(batch.targets, self.tasks)
        return batch


def resolve_rows(rows: BatchDataset, tasks: Mapping[str, Task]) -> BatchDataset:
    """Returns rows with the labels that count; the rows themselves where no task depends on others.

    Raises:
        UserError: A task depends on one that there is not, or on itself.
    """
    if not has_dependent_labels(tasks):
        return rows
    check_dependence(tasks)
    return DependentLabels(rows, tasks)
