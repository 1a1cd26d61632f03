"""Checks before training starts: the losses of tasks, and the names of what is logged."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError
from src.models.heads import Group
from src.tasks import Task

ROWS = 3  # of the examples that losses are tried on


def check_losses(groups: Iterable[Group]) -> None:
    """Checks the loss of each kind of task on missing labels.

    It must be one number per label, 0 where the label is missing, and have no gradient there.

    Raises:
        UserError: A loss is wrong; the message names the task and says what is right.
    """
    for group in groups:
        check_loss(group)


def check_loss(group: Group) -> None:
    """Checks the loss of one group of tasks, see :func:`check_losses`."""
    task = group.task
    name = group.names[0]
    if not task.out_features:
        return
    known, missing = make_targets(task, group)
    places = missing.shape[: missing.ndim - task.event_dims]
    outputs = torch.linspace(-1, 1, places.numel() * task.out_features).view(
        *places, task.out_features
    )
    try:
        with torch.enable_grad():
            task.losses(outputs, known)
    except Exception:
        # the kind reads labels of another form, and checks those itself
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
            f"{method} gives shape {tuple(losses.shape)} for targets of shape "
            f"{tuple(missing.shape)}, where one loss for each label is expected"
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

    # 0 times infinity: a loss of 0 can have a gradient of NaN
    (gradient,) = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
    if gradient is not None and (gradient.isnan().any() or gradient.any()):
        raise UserError(
            f"{method} gives a gradient where the label is missing: put a valid value there before "
            f"the loss is taken, targets.where(is_labelled(targets), 0), and {mask}"
        )


def make_targets(task: Task, group: Group) -> tuple[Tensor, Tensor]:
    """Makes labels of a few rows for a group of tasks: all 0, and all missing."""
    shape = (ROWS, task.values_per_label) if task.event_dims else (ROWS,)
    try:
        missing = task.encode(np.full(shape, None, dtype=object))
    except Exception:
        # the label space is not known before the data are read
        missing = torch.full(shape, float("nan"))
    stacked = group.stack(dict.fromkeys(group.names, missing))
    return torch.zeros_like(stacked), stacked


def check_keys(tasks: Mapping[str, Task]) -> None:
    """Checks that no two values are logged under one key.

    Raises:
        UserError: Two are; the message names both tasks.
    """
    taken: dict[str, str] = {}
    for name, task in tasks.items():
        outputs = getattr(task, "labels", ()) if getattr(task, "per_label", False) else ()
        ends = ["loss", *task.all_metric_names]
        ends += [f"{metric}/{label}" for metric in task.all_metric_names for label in outputs]
        for key in (f"{name}/{end}" for end in ends):
            if key in taken:
                raise UserError(
                    f"tasks '{taken[key]}' and '{name}' would both be logged as <stage>/{key}: "
                    "rename one, without '/' in its name"
                )
            taken[key] = name
