"""Few examples of a task: random draws from the labelled rows of a split."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from src.batch import Batch
from src.data.rows import BatchDataset, Rows
from src.errors import UserError
from src.rng import make_generator
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Ordinal, Task
from src.tasks.labels import get_missing, is_labelled


class ExampleRows(BatchDataset):
    """Some rows of a split, with the labels of one task alone.

    Args:
        rows: The split.
        ids: (k,) The rows.
        task: The task whose labels stay; those of other tasks are missing.
    """

    def __init__(self, rows: BatchDataset, ids: Tensor, task: str) -> None:
        self.rows = rows
        self.ids = ids
        self.task = task

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns examples by their places among the examples."""
        batch = self.rows[torch.where(ids < 0, ids, self.ids[ids])]
        targets = {}
        for name, target in batch.targets.items():
            kept = target if name == self.task else torch.full_like(target, get_missing(target))
            targets[name] = kept
        return replace(batch, targets=targets)


def read_targets(rows: BatchDataset, task: str, batch_size: int) -> Tensor:
    """Returns the labels (N, ...) of a task in all rows of a split.

    Labels of sentences are as long as the longest of all.

    Args:
        rows: The split.
        task: The task.
        batch_size: Rows that are read at a time, where they are not in memory.
    """
    if isinstance(rows, Rows):
        return rows.targets[task]
    parts = [rows[ids].targets[task] for ids in torch.arange(len(rows)).split(batch_size)]
    if parts[0].ndim > 1 and len({part.shape[1:] for part in parts}) > 1:
        return pad_labels(parts)
    return torch.cat(parts)


def pad_labels(parts: Sequence[Tensor]) -> Tensor:
    """Joins labels of places (B, S, ...) whose numbers S of places differ; padding is missing."""
    longest = max(part.shape[1] for part in parts)
    missing = get_missing(parts[0])
    padded = []
    for part in parts:
        whole = part.new_full((len(part), longest, *part.shape[2:]), missing)
        whole[:, : part.shape[1]] = part
        padded.append(whole)
    return torch.cat(padded)


def find_groups(task: Task, targets: Tensor) -> tuple[list[str], Tensor]:
    """Returns the classes that examples are wanted for, and the classes of each row (N, G).

    These are the classes of a task with one label a row, and the labels of a multi-label task.
    Numbers, and labels of words or pixels, have none.

    Args:
        task: The task.
        targets: (N, ...) labels.
    """
    if isinstance(task, MultilabelClassification) and targets.ndim == 2:
        return list(map(str, task.labels)), targets == 1
    if not isinstance(task, BinaryClassification | Classification | Ordinal) or targets.ndim != 1:
        return [], targets.new_zeros(len(targets), 0, dtype=torch.bool)
    names = list(map(str, task.classes))
    places = torch.arange(len(names)).to(targets)
    return names, targets[:, None] == places


def find_labelled(targets: Tensor) -> Tensor:
    """Returns which rows (N,) have at least one known label."""
    return is_labelled(targets).reshape(len(targets), -1).any(1)


def draw_examples(labelled: Tensor, groups: Tensor, shots: int, *key: int) -> Tensor:
    """Draws k rows at random, one of each class first where k allows: (k,) row numbers.

    The draw with a key is one random order of the rows, in which the first row of each class has
    moved to the front. So the examples of a smaller k are among those of a larger k.

    Args:
        labelled: (N,) rows to draw from.
        groups: (N, G) The classes of each row.
        shots: k.
        key: Integers such as (seed, draw).
    """
    rows = labelled.nonzero().flatten()
    order = rows[torch.randperm(len(rows), generator=make_generator(*key))]
    of_classes = groups[order]
    places = of_classes.long().argmax(0)[of_classes.any(0)].unique()
    others = torch.ones(len(order), dtype=torch.bool)
    others[places] = False
    return torch.cat([order[places], order[others]])[:shots]


def check_shots(
    task: str, shots: Sequence[int], labelled: Tensor, names: Sequence[str], groups: Tensor
) -> None:
    """Checks that there are as many rows as the largest k asks for, and a row of each class.

    Raises:
        UserError: There are not.
    """
    rows = int(labelled.sum())
    counts = count_groups(names, groups & labelled[:, None])
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    of_classes = f" ({listed})" if listed else ""
    if max(shots) > rows:
        raise UserError(
            f"--shots {max(shots)}: the training rows have {rows} with a label of "
            f"'{task}'{of_classes}: ask for fewer"
        )
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise UserError(
            f"task '{task}': no training row is of the class {', '.join(empty)}{of_classes}: none "
            "can be drawn"
        )


def count_groups(names: Sequence[str], groups: Tensor) -> Mapping[str, int]:
    """Returns {class: number of its rows}."""
    return dict(zip(names, groups.sum(0).tolist(), strict=True))
