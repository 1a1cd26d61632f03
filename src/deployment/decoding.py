"""Decoding of outputs by tensor operations alone, so that a graph can hold it.

``Task.decode`` gives lists for people. Here each kind of task gives the same columns as tensors:
numbers in the label's own unit, probabilities, and positions in a tuple of classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from src.errors import UserError
from src.tasks import (
    BinaryClassification,
    CensoredRegression,
    Classification,
    Counts,
    DenseRegression,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
    Segmentation,
    SequenceLabelling,
    SurfaceNormals,
    Survival,
    Task,
)
from src.tasks.counts import SMALLEST
from src.tasks.dependence import find_parent
from src.tasks.labels import Label
from src.tasks.surface_normals import AXES

MAP = "map"  # the column with a task's prediction for each pixel


@dataclass(frozen=True)
class Decoded:
    """One column of a task's predictions.

    Attributes:
        values: (B, ...) Numbers, or positions in ``classes``.
        classes: The classes whose positions the values are; None for numbers.
        scale: The size by which a difference of the numbers is judged; 1 for probabilities.
        is_set: Whether the values (B, C) say which of the classes are in a set.
    """

    values: Tensor
    classes: tuple[Label, ...] | None = None
    scale: float = 1.0
    is_set: bool = False


def decode_all(
    tasks: Mapping[str, Task], outputs: Mapping[str, Tensor]
) -> dict[str, dict[str, Decoded]]:
    """Returns {task: {suffix of the column's name: column}} of outputs (B, ..., O).

    Raises:
        UserError: A kind of task has no form as tensors.
    """
    found = {name: decode_tensors(task, outputs[name]) for name, task in tasks.items()}
    for name, task in tasks.items():
        parent = find_parent(task)
        if parent is not None:
            assert isinstance(task, BinaryClassification)
            # see decode_factor of src/tasks/dependence.py
            shares = F.logsigmoid(outputs[name].double()) - F.logsigmoid(outputs[parent].double())
            column = shares.exp().clamp(max=1).squeeze(-1)
            found[name][f"p_{task.classes[1]}_if_{parent}"] = Decoded(column)
    return found


@singledispatch
def decode_tensors(task: Task, outputs: Tensor) -> dict[str, Decoded]:
    """Returns {suffix of the column's name: column} of a task's outputs (B, ..., O).

    The columns are those of ``task.decode``; a task of pixels has its map beside them.

    Raises:
        UserError: This kind of task has no form as tensors.
    """
    raise UserError(
        f"{type(task).__name__} has no decoding by tensors: add one to src/deployment/decoding.py"
    )


@decode_tensors.register
def _(task: BinaryClassification, outputs: Tensor) -> dict[str, Decoded]:
    probability = outputs.double().squeeze(-1).sigmoid()
    return {
        "": Decoded(task.predict(outputs).long(), tuple(task.classes)),
        f"p_{task.classes[1]}": Decoded(probability),
    }


@decode_tensors.register
def _(task: MultilabelClassification, outputs: Tensor) -> dict[str, Decoded]:
    decisions = task.predict(outputs).long()
    found = {}
    for i, name in enumerate(task.labels):
        found[name] = Decoded(decisions[..., i], (0, 1))
    probabilities = outputs.double().sigmoid()
    for i, name in enumerate(task.labels):
        found[f"p_{name}"] = Decoded(probabilities[..., i])
    return found


@decode_tensors.register
def _(task: Classification, outputs: Tensor) -> dict[str, Decoded]:
    found = {"": Decoded(task.predict(outputs), tuple(task.classes))}
    if task.out_features == len(task.classes):
        found |= name_probabilities(task.classes, outputs.softmax(-1))
    return found


@decode_tensors.register
def _(task: Ordinal, outputs: Tensor) -> dict[str, Decoded]:
    found = {"": Decoded(task.predict(outputs), tuple(task.classes))}
    return found | name_probabilities(task.classes, task.log_probabilities(outputs).exp())


@decode_tensors.register
def _(task: SequenceLabelling, outputs: Tensor) -> dict[str, Decoded]:
    if task.crf:
        raise UserError(
            "SequenceLabelling with crf true finds its best path by a search that no graph holds: "
            "train it with crf false"
        )
    # the last position stands for padding
    padding = outputs.isnan().any(-1)
    positions = outputs.nan_to_num().argmax(-1)
    positions = positions.masked_fill(padding, len(task.classes))
    return {"": Decoded(positions, (*map(str, task.classes), ""))}


@decode_tensors.register
def _(task: Regression, outputs: Tensor) -> dict[str, Decoded]:
    assert task.std is not None
    values = task.in_units(task.predict(outputs))
    if not task.names:
        return {"": Decoded(values.squeeze(-1), scale=task.std[0])}
    found = {}
    for i, name in enumerate(task.names):
        found[name] = Decoded(values[:, i], scale=task.std[i])
    return found


@decode_tensors.register
def _(task: CensoredRegression, outputs: Tensor) -> dict[str, Decoded]:
    assert task.std is not None
    return {"": Decoded(task.in_units(outputs.squeeze(-1)), scale=task.std)}


@decode_tensors.register
def _(task: Quantiles, outputs: Tensor) -> dict[str, Decoded]:
    assert task.std is not None
    values = task.in_units(task.predict(outputs))
    found = {"": Decoded(values[..., task.middle], scale=task.std)}
    for k, level in enumerate(task.levels):
        found[f"q{level:g}"] = Decoded(values[..., k], scale=task.std)
    return found


@decode_tensors.register
def _(task: Counts, outputs: Tensor) -> dict[str, Decoded]:
    assert task.rate is not None
    found = {"": Decoded(task.predict(outputs), scale=task.rate)}
    if task.distribution == "negative_binomial":
        found["dispersion"] = Decoded(F.softplus(outputs[..., 1].double()) + SMALLEST)
    return found


@decode_tensors.register
def _(task: Survival, outputs: Tensor) -> dict[str, Decoded]:
    curves = task.predict(outputs)
    found = {"": Decoded(task.expect_time(curves), scale=task.ends[-1])}
    for j, end in enumerate(task.ends):
        found[f"survival_{end:g}"] = Decoded(curves[..., j])
    return found


@decode_tensors.register
def _(task: Segmentation, outputs: Tensor) -> dict[str, Decoded]:
    classes = task.predict(outputs)
    found = {}
    for k, label in enumerate(task.classes):
        found[f"share_{label}"] = Decoded((classes == k).flatten(1).float().mean(1))
    return found | {MAP: Decoded(classes, tuple(task.ids))}


@decode_tensors.register
def _(task: DenseRegression, outputs: Tensor) -> dict[str, Decoded]:
    assert task.std is not None
    values = task.in_units(task.predict(outputs).double())
    means = values.flatten(1, -2).mean(1)
    found = {}
    for i, name in enumerate(task.names or ("",)):
        found[f"mean_{name}" if name else "mean"] = Decoded(means[:, i], scale=task.std[i])
    maps = values.float() if task.names else values[..., 0].float()
    return found | {MAP: Decoded(maps, scale=max(task.std))}


@decode_tensors.register
def _(task: SurfaceNormals, outputs: Tensor) -> dict[str, Decoded]:
    units = F.normalize(outputs.float(), dim=-1)
    means = units.double().flatten(1, -2).mean(1)
    found = {f"mean_{axis}": Decoded(means[:, i]) for i, axis in enumerate(AXES)}
    return found | {MAP: Decoded(units)}


def name_probabilities(classes: Sequence[Any], probabilities: Tensor) -> dict[str, Decoded]:
    """Returns a column for the probability of each class, from (B, C)."""
    return {f"p_{name}": Decoded(probabilities[..., i]) for i, name in enumerate(classes)}


def join_name(task: str, suffix: str) -> str:
    """Returns the name of a column, as files of predictions have it."""
    return f"{task}.{suffix}" if suffix else task


def find_ties(
    decode: Callable[[Tensor], Mapping[str, Decoded]], outputs: Tensor, tolerance: float
) -> Tensor:
    """Returns the rows (B,) whose classes hang on a difference below the tolerance.

    Args:
        decode: Returns {suffix: column} of outputs.
        outputs: (B, ..., O).
        tolerance: The size of a difference between outputs that counts as none.
    """
    ties = torch.zeros(len(outputs), dtype=torch.bool)
    plain = list_classes(decode(outputs))
    slope = torch.linspace(-tolerance, tolerance, max(2, outputs.shape[-1]))
    moves = [torch.full_like(slope, tolerance), slope]
    for move in (*moves, *(-each for each in moves)):
        moved = list_classes(decode(outputs + move[: outputs.shape[-1]]))
        for before, after in zip(plain, moved, strict=True):
            ties |= (before != after).reshape(len(outputs), -1).any(1)
    return ties


def list_classes(columns: Mapping[str, Decoded]) -> list[Tensor]:
    """Returns the values of the columns that are classes or sets of them."""
    return [column.values for column in columns.values() if column.classes is not None]
