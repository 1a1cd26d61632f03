"""Rows of a run as people write them, to try an exported model on."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from src.batch import Batch
from src.cli.loaded_run import LoadedRun
from src.deployment.row_inputs import Inputs, RowInput, take_values

MOST = 1000  # validation rows that are compared
TRACED = 7  # rows that a network is traced with


def write_rows(run: LoadedRun, batch: Batch, inputs: Sequence[RowInput]) -> list[dict[str, Any]]:
    """Returns validation rows as JSON has them: the words of the file, or lists of numbers.

    Args:
        run: The run.
        batch: The rows, as ``LoadedRun.load_rows`` gives them for validation.
        inputs: The inputs of the model.
    """
    every = len(run.data.split("val"))
    picked = pick_rows(every, len(batch)).tolist()
    columns: dict[str, list[Any]] = {}
    for each in inputs:
        if each.kind != "tensor" and each.column not in columns:
            words = run.data.column_words("val", each.column)
            columns[each.column] = [words[row] for row in picked]
    for name, values in take_values(inputs, batch.inputs).items():
        columns[name] = values.tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def pick_rows(every: int, count: int) -> Tensor:
    """Returns row numbers spread evenly, as ``LoadedRun.load_rows`` takes them."""
    return torch.arange(count) * every // count


def take_example(inputs: Inputs) -> Inputs:
    """Returns inputs of a few rows, some of them twice where there are fewer."""

    def take(values: Tensor) -> Tensor:
        return values[torch.arange(TRACED) % len(values)]

    if isinstance(inputs, Tensor):
        return take(inputs)
    return {name: take(values) for name, values in inputs.items()}
