"""Data sets that map row numbers to a batch, and the common one: a split in memory."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.batch import PADDING, Batch
from src.tasks.labels import get_missing, remove_rows

Split = Literal["train", "val", "test", "predict"]


class LazyValues(ABC):
    """Inputs of many rows that are made when a batch needs them, as images are decoded."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of rows."""

    @abstractmethod
    def __getitem__(self, rows: Tensor) -> Self:
        """Returns some rows (B,), not made yet."""

    @abstractmethod
    def append(self, other: Self) -> Self:
        """Returns these rows and then others."""

    @abstractmethod
    def load(self) -> Tensor:
        """Makes all rows: (N, *shape)."""

    @abstractmethod
    def hash_rows(self) -> np.ndarray:
        """Hashes each row: (N,) uint64."""


Values = Tensor | LazyValues
Inputs = Values | dict[str, Values]


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
        inputs: The dense input (N, *shape), or a dict of inputs; some may be lazy.
        targets: {task: (N,) or (N, L)}.
        extras: Other columns that belong to the rows, by name.
        row_info: Columns that identify the rows in files of predictions: 'id', their names, and
            'split', if they belong to several.
        weights: {task: (N,)} weights of the rows, at least 0; a task that is not there has weight 1
            in each row. Labels of weight 0 are taken for missing, so that they count nowhere.
    """

    def __init__(
        self,
        inputs: Inputs,
        targets: dict[str, Tensor] | None = None,
        extras: dict[str, Tensor] | None = None,
        row_info: dict[str, list[Any]] | None = None,
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        self.inputs = inputs
        self.weights = weights or {}
        self.targets = dict(targets or {})
        for name, weight in self.weights.items():
            if name in self.targets:
                self.targets[name] = remove_rows(self.targets[name], weight == 0)
        self.extras = extras or {}
        self.row_info = row_info or {}

    def append(self, other: Self) -> Self:
        """Returns these rows and then those of another split."""
        inputs = append_inputs(self.inputs, other.inputs)
        targets = {name: torch.cat([y, other.targets[name]]) for name, y in self.targets.items()}
        row_info = {key: [*these, *other.row_info[key]] for key, these in self.row_info.items()}
        weights = {name: torch.cat([w, other.weights[name]]) for name, w in self.weights.items()}
        extras = {name: torch.cat([x, other.extras[name]]) for name, x in self.extras.items()}
        return type(self)(inputs, targets, extras, row_info, weights)

    def __len__(self) -> int:
        if isinstance(self.inputs, dict):
            return len(next(iter(self.inputs.values())))
        return len(self.inputs)

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows ``ids``; padding repeats row 0 with all labels missing."""
        # padding reads row 0, whose labels are then masked
        has_padding = len(ids) > 0 and int(ids[-1]) == PADDING
        rows = ids.clamp(min=0) if has_padding else ids
        inputs: Tensor | dict[str, Tensor]
        if isinstance(self.inputs, dict):
            inputs = select(self.inputs, rows)
        else:
            inputs = select({"": self.inputs}, rows)[""]
        targets = select(self.targets, rows)
        weights = select(self.weights, rows)
        if has_padding:
            for target in targets.values():
                target[ids == PADDING] = get_missing(target)
            for weight in weights.values():
                weight[ids == PADDING] = 0
        return Batch(inputs, targets, ids, select(self.extras, rows), weights)


def select(values: Mapping[str, Values], rows: Tensor) -> dict[str, Tensor]:
    """Returns some rows of each tensor; makes lazy ones."""
    selected = {}
    for name, each in values.items():
        if isinstance(each, LazyValues):
            selected[name] = each[rows].load()
        else:
            # index_select takes half of the time of tensor[rows]
            selected[name] = each.index_select(0, rows)
    return selected


def take_rows(inputs: Inputs, rows: Tensor) -> Inputs:
    """Returns some rows of inputs; lazy ones stay lazy."""
    if isinstance(inputs, dict):
        return {key: values[rows] for key, values in inputs.items()}
    return inputs[rows]


def append_inputs(first: Inputs, second: Inputs) -> Inputs:
    """Returns the rows of inputs, and then the rows of others of the same form."""

    def append(x: Values, y: Values) -> Values:
        if isinstance(x, LazyValues):
            assert isinstance(y, type(x))
            return x.append(y)
        assert isinstance(y, Tensor)
        return torch.cat([x, y])

    if isinstance(first, dict):
        assert isinstance(second, dict)
        return {key: append(values, second[key]) for key, values in first.items()}
    assert not isinstance(second, dict)
    return append(first, second)


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
