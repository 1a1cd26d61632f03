"""The entries of a model's state that belong to one task alone."""

from collections.abc import Mapping, Sequence

from torch import nn

from src.models.sharing.sharing import Sharing, owner_names


def list_own_weights(
    sharing: Sharing, heads: nn.Module, paths: Mapping[str, str]
) -> dict[str, list[tuple[str, int | None]]] | None:
    """Lists {task: (name in the model's state, its slice along the first dimension or None)}.

    A model with these entries of one checkpoint, and the other tasks' entries of another, predicts
    each task as its own checkpoint did.

    Args:
        sharing: The sharing architecture, ``sharing`` in the state.
        heads: The heads, ``heads`` in the state.
        paths: {task: name of its head below ``heads``}.

    Returns:
        None where tasks share anything, or where the task of a buffer is not clear.
    """
    if len(sharing.tasks) == 1 or any(True for _ in sharing.shared_parameters()):
        return None
    owner = owner_names(sharing)
    found: dict[str, list[tuple[str, int | None]]] = {task: [] for task in sharing.tasks}
    for place, tasks in owner.items():
        # "name" or "name[k]"
        name, sliced, number = place.partition("[")
        for task in tasks:
            found[task].append((f"sharing.{name}", int(number[:-1]) if sliced else None))

    for name, _ in sharing.named_buffers():
        holder = find_owner(name, owner)
        if holder is None:
            return None
        found[holder].append((f"sharing.{name}", None))
    for task, path in paths.items():
        found[task] += [
            (f"heads.{path}.{name}", None) for name in heads.get_submodule(path).state_dict()
        ]
    return found


def find_owner(buffer: str, owner: Mapping[str, set[str]]) -> str | None:
    """Finds the task of a buffer: the one whose parameters stand in the same module.

    Where the module has no parameters, the module around it counts.

    Returns:
        None if the parameters belong to several tasks.
    """
    path: Sequence[str] = buffer.split(".")[:-1]
    while path:
        within = [tasks for place, tasks in owner.items() if place.startswith(".".join(path) + ".")]
        if within:
            tasks = set.union(*within)
            return next(iter(tasks)) if len(tasks) == 1 else None
        path = path[:-1]
    return None
