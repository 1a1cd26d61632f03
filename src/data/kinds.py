"""Task kinds by name, with settings given by hand."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from src.errors import UserError, suggest_or_list
from src.tasks import Task
from src.tasks.metric_classes import refuse_unknown_classes

TYPES_IN_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a word",
    tuple: "a list",
    NoneType: "null",
}


def parse_declaration(given: object) -> tuple[type[Task] | None, dict[str, Any]]:
    """Reads the declaration of a task in the settings.

    Args:
        given: The name of a kind, or settings, or both as {class_path, init_args}, or a class.

    Returns:
        The kind, None if it is not set, and the settings.

    Raises:
        UserError: The kind is not known, or the declaration has another form.
    """
    if isinstance(given, type) and issubclass(given, Task):
        return given, {}
    if isinstance(given, str):
        return find_kind(given), {}
    if not isinstance(given, dict):
        raise UserError(f"is set to {given!r}, where the name of a kind or settings are expected")
    settings = {
        key: value for key, value in given.items() if key not in ("class_path", "init_args")
    }
    settings |= given.get("init_args", {})
    return find_kind(given["class_path"]) if "class_path" in given else None, settings


def find_declared_kind(given: object) -> type[Task] | None:
    """Returns the kind that the settings of a task name; None where they leave it open.

    Raises:
        UserError: The kind is not known, or the declaration has another form.
    """
    return type(given) if isinstance(given, Task) else parse_declaration(given)[0]


def read_forms(kind: type[Task] | Task, columns: int) -> tuple[str, ...]:
    """Returns how each of a label's columns is read: as a number, a class or a bound."""
    forms = kind.label_forms
    return tuple(forms[min(k, len(forms) - 1)] for k in range(columns))


def find_further_columns(given: object) -> dict[str, str]:
    """Returns {setting: column} of the columns that a label has besides its target's.

    Args:
        given: The settings of a task, as a user gives them, or a task. None are found in settings
            that no task can be built from, which is said where it is built.
    """
    if isinstance(given, Task):
        kind: type[Task] | None = type(given)
        settings: Mapping[str, Any] = vars(given)
    else:
        try:
            kind, settings = parse_declaration(given)
        except UserError:
            return {}
    found = {}
    for key in kind.column_settings if kind is not None else ():
        if settings.get(key) is not None:
            found[key] = str(settings[key])
    return found


def find_kind(name: str) -> type[Task]:
    """Returns the task kind with a class name or class path.

    Raises:
        UserError: There is none.
    """
    # of two kinds with one name, that of this project comes last, and is found
    ordered = sorted(list_kinds(Task), key=lambda kind: kind.__module__.startswith("src."))
    kinds = {kind.__name__: kind for kind in ordered}
    module, _, short = name.rpartition(".")
    try:
        kind = getattr(import_module(module), short) if module else kinds[short]
    except (ImportError, AttributeError, KeyError):
        kind = None
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise UserError(f"is set to the unknown kind '{name}': {suggest_or_list(short, kinds)}")
    return kind


def build_task(kind: type[Task], settings: Mapping[str, Any]) -> Task:
    """Builds a task of a kind with settings given by hand.

    Raises:
        UserError: The kind has no such setting, or it cannot have that value.
    """
    types = get_type_hints(kind)
    known = list(inspect.signature(kind).parameters)
    for key, given in settings.items():
        if key not in known:
            hint = suggest_or_list(key, known)
            raise UserError(f"has no setting '{key}' as a {kind.__name__}: {hint}")
        if not fits_type(given, types[key]):
            wanted = " or ".join(describe_type(types[key]))
            raise UserError(f"has the setting {key} '{given}', where {wanted} is expected")
    try:
        return kind(**{key: as_tuple(value) for key, value in settings.items()})
    except TypeError as error:
        raise UserError(f"cannot be built as a {kind.__name__}: {error}") from None


def as_tuple(value: object) -> Any:
    """Returns a list, which YAML has for a tuple, as a tuple; other values as they are."""
    return tuple(value) if isinstance(value, list) else value


def fits_type(value: object, kind: Any) -> bool:
    """Returns whether a value from YAML is of a type; lists count as tuples."""
    if get_origin(kind) in (Union, UnionType):
        return any(fits_type(value, option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            return False
        return all(fits_type(item, get_args(kind)[0]) for item in value)

    # true and false are integers in Python, but not for people
    if kind is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


def describe_type(kind: Any) -> list[str]:
    """Returns a type in words, an entry for each of several."""
    if get_origin(kind) in (Union, UnionType):
        words = [word for option in get_args(kind) for word in describe_type(option)]
        return list(dict.fromkeys(words))
    if get_origin(kind) is Literal:
        return [", ".join(map(str, get_args(kind)))]
    return [TYPES_IN_WORDS.get(get_origin(kind) or kind, str(kind))]


def task_from_plain(values: Mapping[str, Any]) -> Task:
    """Returns the task that ``Task.describe`` wrote down.

    Raises:
        UserError: No module that is already imported defines its kind, or one of its metrics.
            Nothing is imported here, since the file may be a stranger's.
    """
    kinds = {f"{kind.__module__}.{kind.__name__}": kind for kind in list_kinds(Task)}
    kind = kinds.get(values["kind"])
    if kind is None:
        hint = suggest_or_list(values["kind"], kinds)
        raise UserError(f"is of the unknown kind '{values['kind']}': {hint}")
    refuse_unknown_classes(values.get("metrics", ()))
    return build_task(kind, {key: value for key, value in values.items() if key != "kind"})


def list_kinds(base: type) -> list[type[Task]]:
    """Returns every task kind that is known, with the kinds derived from each."""
    kinds: list[type[Task]] = []
    children: list[type] = base.__subclasses__()
    for child in children:
        kinds += [child, *list_kinds(child)]
    return kinds
