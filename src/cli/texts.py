"""Gives each key whose type is text the text as it was written.

YAML tells numbers from text by their looks, but what ``2019`` is depends on where it stands: a
number of epochs, or the name of a column. The type of the setting that reads a value decides:
``--data.targets '[2019, 1e3, 012]'`` names three columns, as they stand in the file.
"""

import inspect
import math
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from src.cli.messages import called, path_of, subclasses
from src.data import MultiTaskDataModule
from src.files.yaml12 import Bool, Int, Written
from src.tasks import Task

Hints = tuple[Any, ...]  # the members of a union: each of them may be what a value is
PLAIN = (
    "builtins",
    "datetime",
    "pathlib",
    "torch",
)  # where classes are no choice: int, Path, Tensor ...


def settled(value: Any, hints: Hints) -> Any:
    """Returns a value read from YAML as its types want it: text as it was written, or plain numbers.

    Args:
        value: What :func:`src.files.yaml12.load_as_written` read.
        hints: The types that the setting may have; none where nobody knows.
    """
    if isinstance(value, dict):
        return {name: settled_below(item, hints, value, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        inner = tuple(member for hint in hints for member in elements(hint))
        return [settled(item, inner) for item in value]
    if not isinstance(value, Written):
        return value
    if is_text(value, hints):
        return value.text
    if isinstance(value, Bool):
        return bool(value)
    if isinstance(value, Int):
        return int(value)
    return float(value) if math.isfinite(value) else value.text  # JSON has no word for the others


def settled_below(item: Any, hints: Hints, owner: dict[Any, Any], name: str) -> Any:
    """Returns what stands under a name of a mapping; the settings of a class are in ``init_args``."""
    if name == "init_args" and isinstance(item, dict):
        return {key: settled(value, below(hints, owner, str(key))) for key, value in item.items()}
    return settled(item, below(hints, owner, name))


def is_text(value: Written, hints: Hints) -> bool:
    """Returns whether a number or truth, by its looks, is text to a setting of these types.

    Where both are welcome (the name of a class may be 1, or 01), a number is one that Python would
    write in the same way, and true is a word.
    """
    choices = [choice for hint in hints if get_origin(hint) is Literal for choice in get_args(hint)]
    if choices:
        return value not in choices and value.text in choices
    if str not in hints or isinstance(value, Bool):
        return str in hints
    plain, kinds = (int(value), {int, float}) if isinstance(value, Int) else (float(value), {float})
    return not kinds & set(hints) or value.text != str(plain)


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
    """Returns the class that a value names, or all that it might be."""
    kinds = known_kinds(hints)
    path = value.get("class_path") if isinstance(value, dict) else value
    if not kinds or not isinstance(path, str):
        return kinds
    return of_name(path, kinds) or imported(path)


def known_kinds(hints: Hints) -> list[Any]:
    """Returns the classes that these types ask for, with all that have been imported below them."""
    return [kind for hint in hints for base in bases(hint) for kind in (base, *subclasses(base))]


def of_name(path: str, kinds: list[Any]) -> list[Any]:
    """Returns the classes that go by a name, or by the path of a class."""
    return [kind for kind in kinds if path in (*called(kind), path_of(kind))]


def imported(path: str) -> list[Any]:
    """Returns the class of a path as the package it belongs to exports it; none if there is none."""
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


@lru_cache(maxsize=1024)
def settings_of(kind: Any) -> dict[str, Hints]:
    """Returns the types of a class's settings, with those that it hands on to its bases."""
    found: dict[str, Hints] = {}
    for owner in reversed(kind.__mro__) if inspect.isclass(kind) else [kind]:
        reads = owner.__dict__.get("__init__") if inspect.isclass(owner) else owner
        try:
            hints = get_type_hints(reads) if reads else {}
        except (NameError, TypeError):
            continue
        found |= {name: members(hint) for name, hint in hints.items()}
    is_data = inspect.isclass(kind) and issubclass(kind, MultiTaskDataModule)
    if is_data and any(get_origin(hint) is dict for hint in found.get("tasks", ())):
        found["tasks"] = (dict[str, Task | str],)  # typed Any, since a kind may be left to the data
    return found


def at(key: str, types: Mapping[str, Hints], tree: Mapping[str, Any]) -> Hints:
    """Returns the types of the setting that a dotted key names.

    Args:
        key: The key; ``init_args`` may stand in it.
        types: The types of the topmost keys.
        tree: All settings, which say what classes were chosen.
    """
    first, *names = (name for name in key.split(".") if name != "init_args")
    hints, owner = types.get(first, ()), tree.get(first)
    for name in names:
        hints = below(hints, owner, name)
        inner = owner.get("init_args", owner) if isinstance(owner, dict) else {}
        owner = inner.get(name) if isinstance(inner, dict) else None
    return hints


def value_at(key: str, tree: Any) -> Any:
    """Returns what stands under a dotted key; None where nothing does."""
    for name in key.split("."):
        inner = (
            tree.get("init_args", tree) if isinstance(tree, Mapping) and name not in tree else tree
        )
        tree = inner.get(name) if isinstance(inner, Mapping) else None
    return tree
