"""Data sets that map row numbers to a batch, and the common one: a split in memory."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.batch import PADDING, Batch
from src.tasks import MISSING

Split = Literal["train", "val", "test", "predict"]


class BatchDataset(Dataset[Batch], ABC):
    """A data set that returns many rows at once."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of rows."""

    @abstractmethod
    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows ``ids`` (B,).

        ``PADDING`` among them stands at the end. It gives rows of any content, with all labels
        missing.
        """


class Rows(BatchDataset):
    """A split in memory; a batch takes one indexing operation per tensor.

    Args:
        inputs: The dense input (N, *shape), or a dict of tensors.
        targets: {task: (N,) or (N, L)}.
        extras: Other columns that belong to the rows, by name.
        row_info: Columns that identify the rows in files of predictions: 'id', their names, and
            'split', if they belong to several.
    """

    def __init__(
        self,
        inputs: Tensor | dict[str, Tensor],
        targets: dict[str, Tensor] | None = None,
        extras: dict[str, Tensor] | None = None,
        row_info: dict[str, list[Any]] | None = None,
    ) -> None:
        self.inputs = inputs
        self.targets = targets or {}
        self.extras = extras or {}
        self.row_info = row_info or {}

    def append(self, other: Self) -> "Rows":
        """Returns these rows and then those of another split; inputs must be dicts."""
        # only tables append, and they have dicts and no extras
        assert isinstance(self.inputs, dict)
        assert isinstance(other.inputs, dict)
        inputs = {key: torch.cat([x, other.inputs[key]]) for key, x in self.inputs.items()}
        targets = {name: torch.cat([y, other.targets[name]]) for name, y in self.targets.items()}
        row_info = {key: [*these, *other.row_info[key]] for key, these in self.row_info.items()}
        return Rows(inputs, targets, row_info=row_info)

    def __len__(self) -> int:
        if isinstance(self.inputs, Tensor):
            return len(self.inputs)
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows ``ids``; padding repeats row 0 with all labels missing."""
        # padding reads row 0, whose labels are then masked
        has_padding = len(ids) > 0 and int(ids[-1]) == PADDING
        rows = ids.clamp(min=0) if has_padding else ids
        if isinstance(self.inputs, Tensor):
            inputs: Tensor | dict[str, Tensor] = self.inputs.index_select(0, rows)
        else:
            inputs = select(self.inputs, rows)
        targets = select(self.targets, rows)
        if has_padding:
            for target in targets.values():
                target[ids == PADDING] = float("nan") if target.is_floating_point() else MISSING
        return Batch(inputs, targets, ids, select(self.extras, rows))


def select(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Returns some rows of each tensor."""
    # index_select takes half of the time of tensor[rows]
    return {name: tensor.index_select(0, rows) for name, tensor in tensors.items()}


def standard_split(rows: int, seed: int, val: float = 0.2, test: float = 0.2) -> dict[str, Tensor]:
    """Splits the rows 0 ... rows - 1 at random.

    Args:
        rows: Number of rows.
        seed: Seed of the draw.
        val: Share of the rows that validates.
        test: Share of the rows that tests.

    Returns:
        {'train', 'val', 'test': row numbers in ascending order}.
    """
    # the test rows come first: another share of validation leaves them as they are
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    n_test = round(rows * test)
    n_val = round(rows * val)
    sides = order.split([n_test, n_val, rows - n_test - n_val])
    names = ("test", "val", "train")
    return {name: side.sort().values for name, side in zip(names, sides, strict=True)}
