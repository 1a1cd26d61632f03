"""What is looked at before training starts: whether tasks' losses and names of metrics can be right."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError
from src.models.heads import Group
from src.tasks import Task

ROWS = 3


def check_losses(groups: Iterable[Group]) -> None:
    """Tries each kind's loss on labels that are missing: it must be one number per label, 0, and leave the head alone.

    Raises:
        UserError: It is not; the message names the task and says what is right.
    """
    for group in groups:
        check_loss(group)


def check_loss(group: Group) -> None:
    """Looks at one group of alike tasks, see :func:`check_losses`."""
    task, name = group.task, group.names[0]
    if not task.out_features:
        return
    known, missing = targets_of(task, group)
    places = missing.shape[: missing.ndim - task.event_dims]
    outputs = torch.linspace(-1, 1, places.numel() * task.out_features).view(
        *places, task.out_features
    )
    try:
        with torch.enable_grad():
            task.losses(outputs, known)
    except (
        Exception
    ):  # this form of labels is none that the kind knows; with its own it says so itself
        return
    method = f"task '{name}': {type(task).__name__}.losses"
    mask = "multiply by is_labelled(targets)"
    try:
        with torch.enable_grad():
            outputs = outputs.requires_grad_()
            losses = task.losses(outputs, missing)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{method} fails where the label is missing ({reason}): put a valid value there, "
            f"targets.where(is_labelled(targets), 0), and {mask}"
        ) from error
    if losses.shape != missing.shape:
        raise UserError(
            f"{method} gives shape {tuple(losses.shape)} for targets of shape {tuple(missing.shape)}, "
            "where one loss for each label is expected"
        )
    if losses.isnan().any():
        raise UserError(
            f"{method} gives NaN where the label is missing, and must give 0: put a valid value "
            f"there first, targets.where(is_labelled(targets), 0), and {mask}"
        )
    if losses.any():
        worst = float(losses.detach().flatten()[losses.abs().argmax()])
        raise UserError(
            f"{method} gives {worst:g} where the label is missing, and must give 0: {mask}"
        )
    if not losses.requires_grad:
        return
    (gradient,) = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
    if gradient is not None and (gradient.isnan().any() or gradient.any()):
        raise UserError(
            f"{method} gives a gradient where the label is missing: put a valid value there before "
            f"the loss is taken, targets.where(is_labelled(targets), 0), and {mask}"
        )


def targets_of(task: Task, group: Group) -> tuple[Tensor, Tensor]:
    """Returns labels of a few rows for a group of tasks: all 0, and all missing."""
    shape = (ROWS, task.out_features) if task.event_dims else (ROWS,)
    try:
        missing = task.encode(np.full(shape, None, dtype=object))
    except Exception:  # a label space that is not learnt yet
        missing = torch.full(shape, float("nan"))
    stacked = group.stack(dict.fromkeys(group.names, missing))
    return torch.zeros_like(stacked), stacked


def check_keys(tasks: Mapping[str, Task]) -> None:
    """Looks whether two values would be logged under one key.

    Raises:
        UserError: They would; the message names both tasks.
    """
    taken: dict[str, str] = {}
    for name, task in tasks.items():
        outputs = getattr(task, "labels", ()) if getattr(task, "per_label", False) else ()
        ends = ["loss", *task.all_metric_names]
        ends += [f"{metric}/{label}" for metric in task.all_metric_names for label in outputs]
        for key in (f"{name}/{end}" for end in ends):
            if key in taken:
                raise UserError(
                    f"tasks '{taken[key]}' and '{name}' would both be logged as <stage>/{key}: rename one, without '/' in its name"
                )
            taken[key] = name
