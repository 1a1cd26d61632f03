"""Heads from the heads of a trained model: outputs are matched by name, whatever their order."""

from collections.abc import Collection, Hashable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from src.models.encoders.columns import Axis
from src.models.transfer.named_tensors import (
    Copied,
    NamedTensor,
    copy_by_name,
    fits,
    name_all,
)
from src.models.transfer.report import PartReport
from src.tasks import Regression, Task
from src.tasks.head import Head
from src.tasks.scale import restore_task


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
    there = restore_task(task, described)
    if there is None:
        kind = str(described.get("kind")).rpartition(".")[2]
        return PartReport(part, "fresh", f"it was a {kind}, and is a {type(task).__name__}")

    ours = name_entries(head, head.state_dict(), task)
    theirs = name_entries(head, state, there)
    if ours.keys() != theirs.keys() or not all(fits(ours[key], theirs[key]) for key in ours):
        return PartReport(part, "fresh", f"{describe_size(task)}, and was {describe_size(there)}")
    if not set(task.output_names) & set(there.output_names):
        names = [name_all(each.output_names) for each in (task, there)]
        return PartReport(part, "fresh", f"its outputs are {names[0]}, and were {names[1]}")
    both = set(task.output_names) & set(there.output_names)
    now, before = read_scale(task, both), read_scale(there, both)
    if now != before and not is_linear(task):
        return PartReport(part, "fresh", f"its labels are scaled by {describe_scale(now, before)}")

    copied = Copied()
    for key, entry in ours.items():
        copied |= copy_by_name(entry, theirs[key])
    why = []
    if copied.new:
        why.append(f"new: {name_all([o for o in task.output_names if o in copied.new])}")
    if copied.gone:
        why.append(f"gone: {name_all([o for o in there.output_names if o in copied.gone])}")
    if now != before:
        rescale(head, cast(Regression, task), cast(Regression, there))
        why.append(f"rescaled, since labels are scaled by {describe_scale(now, before)}")
    return PartReport(part, "grown" if copied.new else "kept", "; ".join(why))


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


def read_scale(task: Task, outputs: Collection[Hashable]) -> dict[str, Any]:
    """Returns {field: numbers} by which outputs are scaled, for some outputs of a task."""
    found = {}
    for key in task.scale_fields:
        value = getattr(task, key)
        if isinstance(value, tuple) and len(value) == len(task.output_names):
            pairs = zip(task.output_names, value, strict=True)
            value = {name: number for name, number in pairs if name in outputs}
        found[key] = value
    return found


def describe_scale(now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Says how the scale of labels differs from that in the source."""
    words = [
        ", ".join(f"{key} {format_scale(value)}" for key, value in scale.items())
        for scale in (now, before)
    ]
    return f"{words[0]}, and by {words[1]} there"


def format_scale(value: Any) -> str:
    """Returns the numbers of a scale, each with four digits."""
    numbers = value.values() if isinstance(value, dict) else [value]
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
    last = head.linears[-1]
    assert task.mean and task.std and there.mean and there.std
    places = {name: place for place, name in enumerate(there.output_names)}
    for place, name in enumerate(task.output_names):
        before = places.get(name)
        if before is not None:
            factor = there.std[before] / task.std[place]
            shift = (there.mean[before] - task.mean[place]) / task.std[place]
            last.weight[place] *= factor
            last.bias[place] = last.bias[place] * factor + shift
