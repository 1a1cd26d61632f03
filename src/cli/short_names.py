"""Writes out the paths of classes that a configuration chooses by a short name.

So the parser never has to choose: a class of the same name elsewhere makes none ambiguous.
"""

import inspect
from typing import Any

from src.cli.classes import is_exported, path_of
from src.cli.hints import Hints, below, elements, find_by_name, known_kinds
from src.tasks import Task


def write_paths(value: Any, hints: Hints, notes: set[str]) -> Any:
    """Returns nested settings in which classes go by their paths.

    Args:
        value: The settings, or the name of a class.
        hints: The types that the value may have.
        notes: Is told where several of our classes have one name.
    """
    if isinstance(value, str):
        return find_path(value, hints, notes)
    if isinstance(value, list):
        inner = tuple(member for hint in hints for member in elements(hint))
        return [write_paths(item, inner, notes) for item in value]
    if not isinstance(value, dict):
        return value

    result = {}
    for name, item in value.items():
        if name == "class_path":
            result[name] = find_path(item, hints, notes)
        elif name == "init_args" and isinstance(item, dict):
            result[name] = {
                key: write_paths(inner, below(hints, value, str(key)), notes)
                for key, inner in item.items()
            }
        else:
            result[name] = write_paths(item, below(hints, value, str(name)), notes)
    return result


def find_path(name: Any, hints: Hints, notes: set[str]) -> Any:
    """Returns the path of the class that goes by a name; the name itself where there is none."""
    if not isinstance(name, str) or "." in name:
        return name
    found = list(dict.fromkeys(find_by_name(name, known_kinds(hints))))
    ours = [kind for kind in found if kind.__module__.startswith("src.")]
    # ddp is text to the Trainer, unless a strategy of ours goes by it
    if ours or (hints and hints[0] is str):
        found = ours
    # a contract is found only where it stands alone, to be refused by its own name
    found = [kind for kind in found if not inspect.isabstract(kind)] or found
    found.sort(key=lambda kind: (not is_exported(kind), path_of(kind)))

    # the data know which kinds of task there are, and what they call them
    if not found or (Task in hints and len(found) == 1):
        return name
    first, *others = map(path_of, found)
    if ours and others:
        notes.add(f"{name} is {first}; for the other of this name write {' or '.join(others)}")
    return first
