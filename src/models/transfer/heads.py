"""Heads from the heads of a trained model: outputs are matched by name, whatever their order."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.transfer.named_tensors import (
    Axis,
    Copied,
    NamedTensor,
    copy_by_name,
    fits,
    name_all,
)
from src.models.transfer.report import PartReport
from src.tasks import Regression, Task
from src.tasks.head import Head


def start_head(
    name: str, task: Task, head: Head, described: Mapping[str, Any], state: Mapping[str, Tensor]
) -> PartReport:
    """Fills a head from that of a task of the same name, as far as they agree.

    Args:
        name: The task.
        task: The task as the model has it.
        head: Its head, which is changed.
        described: The task as the source describes it.
        state: The state of the source's head.
    """
    part = f"heads.{name}"
    kind = str(described.get("kind")).rpartition(".")[2]
    if kind != type(task).__name__:
        return PartReport(part, "fresh", f"it was a {kind}, and is a {type(task).__name__}")
    try:
        there = restore_task(task, described)
    except (UserError, TypeError, ValueError):
        return PartReport(part, "fresh", f"the source's settings are of no {kind}")

    ours = name_entries(head, head.state_dict(), task)
    theirs = name_entries(head, state, there)
    if ours.keys() != theirs.keys() or not all(fits(ours[key], theirs[key]) for key in ours):
        return PartReport(part, "fresh", f"{describe_size(task)}, and was {describe_size(there)}")
    if not set(task.output_names) & set(there.output_names):
        now, before = name_all(task.output_names), name_all(there.output_names)
        return PartReport(part, "fresh", f"its outputs are {now}, and were {before}")
    if read_scale(task) != read_scale(there) and not is_linear(task):
        return PartReport(part, "fresh", f"its labels are scaled by {describe_scale(task, there)}")

    copied = Copied()
    for key, entry in ours.items():
        copied |= copy_by_name(entry, theirs[key])
    why = []
    if copied.new:
        why.append(f"new: {name_all([o for o in task.output_names if o in copied.new])}")
    if copied.gone:
        why.append(f"gone: {name_all([o for o in there.output_names if o in copied.gone])}")
    if read_scale(task) != read_scale(there):
        rescale(head, cast(Regression, task), cast(Regression, there))
        why.append(f"its last layer is rescaled: {describe_scale(task, there)}")
    return PartReport(part, "grown" if copied.new else "kept", "; ".join(why))


def restore_task(task: Task, described: Mapping[str, Any]) -> Task:
    """Returns a task of the same kind, with settings as a source describes them."""
    known = {field.name for field in fields(task)} - {"metrics", "monitor"}
    settings = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in described.items()
        if key in known
    }
    return type(task)(**settings)


def name_entries(head: Head, state: Mapping[str, Tensor], task: Task) -> dict[str, NamedTensor]:
    """Returns the entries of a head's state, the places of outputs named after them."""
    outputs = Axis(tuple(task.output_names))
    found = {}
    for key, tensor in state.items():
        dims = head.output_axes().get(key, ())
        named = {dim: outputs for dim in dims if tensor.shape[dim] == len(outputs.labels)}
        found[key] = NamedTensor(tensor, named)
    return found


def describe_size(task: Task) -> str:
    """Returns the layers of a task's head in words."""
    hidden = f"{task.depth} hidden layers of width {task.width}" if task.depth else "a linear head"
    return f"{hidden} with {task.out_features} outputs"


def read_scale(task: Task) -> dict[str, Any]:
    """Returns {field: {output: value}} of the fields by which a task's outputs are scaled."""
    return {field: getattr(task, field) for field in task.scale_fields}


def describe_scale(task: Task, there: Task) -> str:
    """Says how the scale of a task's labels differs from that in the source."""
    now, before = (
        ", ".join(f"{key} {format_scale(value)}" for key, value in read_scale(each).items())
        for each in (task, there)
    )
    return f"{now}, and were by {before}"


def format_scale(value: Any) -> str:
    """Returns the numbers of a scale, each with four digits."""
    numbers = value if isinstance(value, tuple) else (value,)
    return " ".join("none" if number is None else f"{number:.4g}" for number in numbers)


def is_linear(task: Task) -> bool:
    """Returns whether outputs are standardised labels, so that another scale is a linear map."""
    return isinstance(task, Regression) and type(task).predict is Regression.predict


@torch.no_grad()
def rescale(head: Head, task: Regression, there: Regression) -> None:
    """Makes a head with outputs in the scale of another task predict the same in its own scale.

    With y = s o + m there and y = s' o' + m' here, o' = (s o + m - m') / s', for each output of
    both.

    Args:
        head: The head, which is changed.
        task: The task whose scale is right.
        there: The task whose scale the outputs have.
    """
    last = cast(nn.Linear, head.linears[-1])
    assert task.mean and task.std and there.mean and there.std
    places = {name: place for place, name in enumerate(there.output_names)}
    for place, name in enumerate(task.output_names):
        before = places.get(name)
        if before is not None:
            factor = there.std[before] / task.std[place]
            shift = (there.mean[before] - task.mean[place]) / task.std[place]
            last.weight[place] *= factor
            last.bias[place] = last.bias[place] * factor + shift
