"""Counts of labels by group in the training rows, before a fit begins."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor

from src.batch import SENSITIVE, Batch
from src.errors import UserError
from src.tasks import is_labelled
from src.tasks.dependence import has_dependent_labels, resolve_labels

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class RowsInMemory(Protocol):
    """A split whose labels, groups and weights are in memory, whatever its inputs are."""

    targets: dict[str, Tensor]
    extras: dict[str, Tensor]
    weights: dict[str, Tensor]


def read_training_rows(model: "MultiTaskModel") -> Batch:
    """Returns labels, groups and weights of all training rows, as training sees them; no inputs.

    Raises:
        UserError: The data do not keep them in memory.
    """
    data = model.trainer.datamodule  # type: ignore[attr-defined]
    rows = data.split("train")
    if not all(hasattr(rows, name) for name in ("targets", "extras", "weights")):
        raise UserError(
            f"model.fairness counts labels of groups in the training rows, which "
            f"{type(data).__name__} does not keep in memory: name the table itself with --data"
        )
    rows = cast(RowsInMemory, rows)
    if SENSITIVE not in rows.extras:
        raise UserError(f"{type(data).__name__} says of no training row which group it is in")
    targets = rows.targets
    if has_dependent_labels(model.tasks):
        targets = resolve_labels(targets, model.tasks)
    ids = torch.arange(len(rows.extras[SENSITIVE]))
    return Batch({}, targets, ids, rows.extras, rows.weights)


def split_columns(batch: Batch, name: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields group (E,), label (E,) and weight (E,) of a task's known labels, by output.

    Args:
        batch: The rows.
        name: The task.
    """
    targets = batch.targets[name]
    weights = batch.weights.get(name, torch.ones(len(batch))).double()
    codes = batch.extras[SENSITIVE]
    for column in targets.reshape(len(batch), -1).T:
        known = is_labelled(column) & (codes >= 0)
        yield codes[known], column[known], weights[known]


def count_labels(model: "MultiTaskModel", groups: int) -> Tensor:
    """Returns the labels of each task in each group of the training rows, weighted: (G, T)."""
    batch = read_training_rows(model)
    counts_GT = torch.zeros(groups, len(model.names), dtype=torch.float64)
    for t, name in enumerate(model.names):
        for codes, _, weights in split_columns(batch, name):
            counts_GT[:, t] += codes.bincount(weights, groups)
    return counts_GT
