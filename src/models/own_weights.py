"""Which entries of a model's state belong to one task alone."""

from collections.abc import Mapping, Sequence

from torch import nn

from src.models.sharing.sharing import Sharing, owner_names


def own_weights(
    sharing: Sharing, heads: nn.Module, paths: Mapping[str, str]
) -> dict[str, list[tuple[str, int | None]]] | None:
    """Returns {task: (name in the model's state, part along its first dimension or None for all of it)}.

    With these entries of one checkpoint, and those of the other tasks of another, each task
    predicts as it did in its own.

    Args:
        sharing: The sharing architecture, ``sharing`` in the state.
        heads: The heads, ``heads`` in the state.
        paths: {task: name of its head below ``heads``}.

    Returns:
        None where tasks share anything, or where a buffer's task cannot be told.
    """
    if len(sharing.tasks) == 1 or any(True for _ in sharing.shared_parameters()):
        return None
    owner = owner_names(sharing)
    found: dict[str, list[tuple[str, int | None]]] = {task: [] for task in sharing.tasks}
    for place, tasks in owner.items():
        name, cut, part = place.partition("[")
        for task in tasks:
            found[task].append((f"sharing.{name}", int(part[:-1]) if cut else None))
    for name, _ in sharing.named_buffers():
        holder = nearest(name, owner)
        if holder is None:
            return None
        found[holder].append((f"sharing.{name}", None))
    for task, path in paths.items():
        found[task] += [
            (f"heads.{path}.{name}", None) for name in heads.get_submodule(path).state_dict()
        ]
    return found


def nearest(buffer: str, owner: Mapping[str, set[str]]) -> str | None:
    """The task whose parameters lie in the smallest module around a buffer that has parameters; None if those are of several."""
    path: Sequence[str] = buffer.split(".")[:-1]
    while path:
        within = [tasks for place, tasks in owner.items() if place.startswith(".".join(path) + ".")]
        if within:
            tasks = set.union(*within)
            return next(iter(tasks)) if len(tasks) == 1 else None
        path = path[:-1]
    return None
