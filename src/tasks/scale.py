"""Labels of a task that starts from another model's have the scale that they have there."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from src.errors import UserError
from src.tasks.regression import Regression
from src.tasks.task import Task

T = TypeVar("T", bound=Task)


def restore_task(task: Task, described: Mapping[str, Any]) -> Task | None:
    """Returns a task as another model describes it; None where it is of another kind.

    Args:
        task: A task of the kind that is expected.
        described: The description, as ``Task.describe`` gives it.
    """
    if str(described.get("kind")).rpartition(".")[2] != type(task).__name__:
        return None
    known = {field.name for field in fields(task)} - {"metrics", "monitor"}
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in described.items()
        if key in known
    }
    try:
        return type(task)(**settings)
    except (UserError, TypeError, ValueError):
        return None


def carry_scale(fitted: T, unfitted: T, described: Mapping[str, Any]) -> T:
    """Returns a task with the scale of another model's task, where nobody has set one by hand.

    Args:
        fitted: The task as training labels have set it.
        unfitted: The task before.
        described: The other task, as ``Task.describe`` gives it.
    """
    there = restore_task(fitted, described)
    if there is None:
        return fitted
    changes = {}
    for key in fitted.scale_fields:
        # numbers set by hand count
        if not getattr(unfitted, key) and getattr(there, key):
            changes[key] = pick_by_output(fitted, there, key)
    return replace(fitted, **changes)


def pick_by_output(task: Task, there: Task, key: str) -> Any:
    """Returns a field of another task; of a vector, each output has the number of its name."""
    values = getattr(there, key)
    if not isinstance(task, Regression):
        return values
    known = dict(zip(there.output_names, values, strict=True))
    own = zip(task.output_names, getattr(task, key), strict=True)
    return tuple(known.get(name, value) for name, value in own)
