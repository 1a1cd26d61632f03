"""The score of a validation or test: a weighted mean of the scores of the tasks."""

from collections.abc import Collection, Mapping
from math import inf, isnan, nan

from src.errors import UserError, suggest_or_list

# a task's name, {task: weight}, or None for the mean of all tasks
ScoreSetting = str | dict[str, float] | None


def read_score_weights(setting: ScoreSetting, tasks: Collection[str]) -> dict[str, float]:
    """Returns {task: its weight in the score}, for all tasks.

    Args:
        setting: The name of the one task that counts, or {task: weight}, where a task that is not
            named does not count; None weighs all tasks alike.
        tasks: The names of all tasks.

    Raises:
        UserError: There is no such task, or the weights cannot be those of a mean.
    """
    if setting is None:
        return dict.fromkeys(tasks, 1.0)
    given = {setting: 1.0} if isinstance(setting, str) else setting
    for name, weight in given.items():
        if name not in tasks:
            hint = suggest_or_list(str(name), tasks)
            raise UserError(f"watch.score names '{name}', which is no task; {hint}")
        if not 0 <= weight < inf:
            raise UserError(
                f"watch.score gives '{name}' the weight {weight}; it must be a finite number of "
                "at least 0"
            )
    if not any(given.values()):
        raise UserError("watch.score gives no task a weight; one of them must be above 0")
    return {name: float(given.get(name, 0.0)) for name in tasks}


def compute_mean(values: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Returns the mean of the tasks' values: sum of weight x value / sum of weights.

    Tasks without a value (NaN) or weight do not count; NaN where none counts.

    Args:
        values: {task: score or loss}.
        weights: {task: weight}, at least 0.
    """
    counted = {}
    for name, value in values.items():
        if weights[name] > 0 and not isnan(value):
            counted[name] = weights[name]
    if not counted:
        return nan
    total = sum(values[name] * weight for name, weight in counted.items())
    return total / sum(counted.values())
