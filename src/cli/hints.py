"""The types that a value may have, by the key that it stands under.

A key is looked up as a person types it: ``model.encoder.width`` leads from the model's signature to
that of the encoder which the configuration chooses, and there to ``int``.
"""

import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Union, get_args, get_origin, get_type_hints

from src.cli.classes import find_optional, names_of, path_of, subclasses
from src.data import MultiTaskDataModule
from src.tasks import Task

Hints = tuple[Any, ...]  # the members of a union: each of them may be what a value is
# modules whose classes are values, not choices: int, timedelta, Path, Tensor
PLAIN = ("builtins", "datetime", "pathlib", "torch")


def members(hint: Any) -> Hints:
    """Returns the types that a hint allows."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for part in get_args(hint) for member in members(part))
    return (hint,)


def elements(hint: Any) -> Hints:
    """Returns the types of what a list of this type holds; none where it is no list."""
    origin = get_origin(hint)
    if inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
        inner = (part for part in get_args(hint) if part is not Ellipsis)
        return tuple(member for part in inner for member in members(part))
    return ()


def below(hints: Hints, owner: Any, name: str) -> Hints:
    """Returns the types of what stands under a name in a value of these types.

    Args:
        hints: The types of the value.
        owner: The value: a mapping, perhaps with a class_path, or the name of a class.
        name: The key of the mapping, or the setting of the class.
    """
    found: list[Any] = []
    for hint in hints:
        origin = get_origin(hint)
        if inspect.isclass(origin) and issubclass(origin, Mapping):
            found += members(get_args(hint)[1])
    for kind in kinds_of(hints, owner):
        found += settings_of(kind).get(name, ())
    return tuple(dict.fromkeys(found))


def kinds_of(hints: Hints, value: Any) -> list[Any]:
    """Returns the class that a value names, or all that it might be.

    Args:
        hints: The types of the value.
        value: A mapping with a class_path, the name of a class, or a list: its last entry counts.
    """
    kinds = known_kinds(hints)
    if isinstance(value, list) and value:
        value = value[-1]
    path = value.get("class_path") if isinstance(value, dict) else value
    if not kinds or not isinstance(path, str):
        return kinds
    return find_by_name(path, kinds) or import_class(path)


def known_kinds(hints: Hints) -> list[Any]:
    """Returns the classes that these types ask for, with all that have been imported below them."""
    found: list[Any] = []
    for hint in hints:
        for base in bases(hint):
            found += [base, *subclasses(base)]
    return found


def find_by_name(path: str, kinds: list[Any]) -> list[Any]:
    """Returns the classes that go by a name, or by the path of a class."""
    found = [kind for kind in kinds if path in (*names_of(kind), path_of(kind))]
    return found or find_optional(path, kinds)


def import_class(path: str) -> list[Any]:
    """Returns the class of a path, imported; none if there is none."""
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name, None) if module else None
    except Exception:  # the parser says what is wrong
        return []
    return [kind] if kind is not None else []


def bases(hint: Any) -> Iterator[type]:
    """Yields the classes that a type asks for, itself or of what a factory returns."""
    if inspect.isclass(hint) and hint.__module__ not in PLAIN and not get_origin(hint):
        yield hint
    elif get_origin(hint) is not None and getattr(get_origin(hint), "__name__", "") == "Callable":
        for member in members(get_args(hint)[-1]):
            yield from bases(member)


def is_choice(hints: Hints) -> bool:
    """Returns whether a value of these types may be the choice of a class."""
    return any(True for hint in hints for _ in bases(hint))


# signatures do not change, and each look at a key reads several
@lru_cache(maxsize=1024)
def settings_of(kind: Any) -> dict[str, Hints]:
    """Returns the types of a class's settings, and of the bases that it hands settings on to."""
    found: dict[str, Hints] = {}
    for owner in reversed(kind.__mro__) if inspect.isclass(kind) else [kind]:
        reads = owner.__dict__.get("__init__") if inspect.isclass(owner) else owner
        try:
            hints = get_type_hints(reads) if reads else {}
        except (NameError, TypeError):
            continue
        found |= {name: members(hint) for name, hint in hints.items()}
    tasks = found.get("tasks", ())
    is_data = inspect.isclass(kind) and issubclass(kind, MultiTaskDataModule)
    if is_data and any(get_origin(hint) is dict for hint in tasks):
        # the signature says Any, since a kind may be left to the data
        others = (hint for hint in tasks if get_origin(hint) is not dict)
        found["tasks"] = (dict[str, Task | str], *others)
    return found


def hints_at(key: str, types: Mapping[str, Hints], tree: Mapping[str, Any]) -> Hints:
    """Returns the types of the setting that a dotted key names.

    Args:
        key: The key; ``init_args`` may stand in it.
        types: The types of the topmost keys.
        tree: All settings, which say what classes were chosen.
    """
    first, *names = (name for name in key.split(".") if name != "init_args")
    hints = types.get(first, ())
    owner = tree.get(first)
    for name in names:
        hints = below(hints, owner, name)
        owner = value_at(name, owner)
    return hints


def value_at(key: str, tree: Any) -> Any:
    """Returns what stands under a dotted key; None where nothing does.

    The settings of a class are found without naming ``init_args``, and those of a list in its last
    entry, as flags mean them.
    """
    for name in key.split("."):
        if isinstance(tree, list) and tree:
            tree = tree[-1]
        if isinstance(tree, Mapping) and name not in tree:
            tree = tree.get("init_args")
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
