"""Rows of predictions, brought together from batches and processes."""

from typing import Any

import torch
from torch import Tensor

from src.batch import PADDING
from src.collectives import gather


def sort_rows(batches: list[Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Joins the batches of all ranks and sorts their rows by row number, padding left out.

    Args:
        batches: Of this rank: (ids, outputs) each.

    Returns:
        The row numbers, shape (rows,), and the outputs of each task, shape (rows, ...).
    """
    mine = []
    for ids, outputs in batches:
        mine.append((ids.cpu(), {name: out.cpu() for name, out in outputs.items()}))
    everyones = [batch for rank in gather(mine) for batch in rank]
    ids = torch.cat([ids for ids, _ in everyones])
    order = ids.argsort()[(ids == PADDING).sum() :]
    joined = {}
    for name in everyones[0][1]:
        joined[name] = torch.cat([outputs[name] for _, outputs in everyones])[order]
    return ids[order], joined
