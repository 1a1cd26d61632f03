"""Rows of predictions, brought together from batches and processes."""

from math import nan
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from src.batch import PADDING
from src.collectives import gather

# the outputs of a task, or columns of rows that are decoded already
Columns = dict[str, list[Any]]


def sort_rows(batches: list[Any]) -> tuple[Tensor, dict[str, Any]]:
    """Joins the batches of all ranks and sorts their rows by row number, padding left out.

    Args:
        batches: Of this rank: (ids, outputs) each.

    Returns:
        The row numbers, shape (rows,), and the outputs of each task, shape (rows, ...). Sequences
        are as long as the longest, with NaN behind the others. What is decoded already is
        {suffix: rows values}.
    """
    mine = []
    for ids, outputs in batches:
        mine.append((ids.cpu(), {name: to_cpu(out) for name, out in outputs.items()}))
    everyones = [batch for rank in gather(mine) for batch in rank]
    ids = torch.cat([ids for ids, _ in everyones])
    order = ids.argsort()[(ids == PADDING).sum() :]
    joined: dict[str, Any] = {}
    for name, first in everyones[0][1].items():
        parts: list[Any] = [outputs[name] for _, outputs in everyones]
        is_decoded = not isinstance(first, Tensor)
        joined[name] = join_columns(parts, order.tolist()) if is_decoded else join(parts)[order]
    return ids[order], joined


def to_cpu(outputs: Tensor | Columns) -> Tensor | Columns:
    """Brings outputs to the CPU, where they are gathered."""
    return outputs.cpu() if isinstance(outputs, Tensor) else outputs


def join(parts: list[Tensor]) -> Tensor:
    """Joins outputs (B, ..., O) of several batches, whose sequences may differ in length."""
    longest = max(part.shape[1] for part in parts)
    if parts[0].ndim == 3:
        parts = [F.pad(part, (0, 0, 0, longest - part.shape[1]), value=nan) for part in parts]
    return torch.cat(parts)


def join_columns(parts: list[Columns], order: list[int]) -> Columns:
    """Joins columns of several batches, and sorts their rows."""
    joined: Columns = {}
    for suffix in parts[0]:
        values = [value for part in parts for value in part[suffix]]
        joined[suffix] = [values[place] for place in order]
    return joined
