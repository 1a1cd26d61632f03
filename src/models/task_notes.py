"""Lines about the tasks of a run: how they are scored, and what validation has chosen."""

from collections.abc import Mapping

from src.tasks import Task


def describe_score(
    tasks: Mapping[str, Task], weights: Mapping[str, float] | None = None, most: int = 6
) -> str:
    """Describes the score, for a person who chooses a model by it.

    Args:
        tasks: {name: task}.
        weights: {name: weight of its score}; None weighs all alike.
        most: Tasks of one kind are named up to this number.
    """
    weights = weights or dict.fromkeys(tasks, 1.0)
    counted = {name: task for name, task in tasks.items() if weights[name] > 0}
    if len(counted) == 1 < len(tasks):
        ((only, task),) = counted.items()
        return f"score: {task.describe_score()} of {only} alone"
    shows_weights = len({weights[name] for name in counted}) > 1
    # tasks with the same words are named together
    alike: dict[str, list[str]] = {}
    for name, task in counted.items():
        shown = f"{name} x {weights[name]:g}" if shows_weights else name
        alike.setdefault(task.describe_score(), []).append(shown)
    parts = []
    for words, names in alike.items():
        listed = ", ".join(names) if len(names) <= most else f"{len(names)} tasks"
        parts.append(f"{words} ({listed})")
    mean = "weighted mean" if shows_weights else "mean"
    return f"score: {mean} over tasks of {', '.join(parts)}"


def describe_choices(
    tasks: Mapping[str, Task], chosen: Mapping[str, Task], most: int = 6
) -> list[str]:
    """Describes the thresholds that validation has chosen, a line for each task.

    Args:
        tasks: {name: task} as declared.
        chosen: The same tasks, with the values that validation has chosen.
        most: Longer lists are cut.
    """
    lines = []
    for name, task in tasks.items():
        words = chosen[name].describe_choice(name)
        free = any(getattr(task, key) is None for key in task.set_by_validation)
        if words is not None and free and chosen[name] is not task:
            lines.append(f"{words}, chosen on validation rows")
    if len(lines) > most:
        lines[most:] = [f"thresholds of {len(lines) - most} more tasks, chosen likewise"]
    return lines
