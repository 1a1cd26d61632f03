"""Task kinds by name, with settings given by hand."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from src.data.reading import nearest
from src.errors import UserError
from src.tasks import Task
from src.tasks.metric_classes import refuse_unknown_classes


def declared(given: Any) -> tuple[type[Task] | None, dict[str, Any]]:
    """Reads what was set by hand for a task: the name of a kind, settings, or both as {class_path, init_args}.

    Raises:
        UserError: No such kind is known, or the form is another one.
    """
    if isinstance(given, type) and issubclass(given, Task):
        return given, {}
    if isinstance(given, str):
        return kind_named(given), {}
    if not isinstance(given, dict):
        raise UserError(f"is set to {given!r}, where the name of a kind or settings are expected")
    settings = {
        key: value for key, value in given.items() if key not in ("class_path", "init_args")
    } | given.get("init_args", {})
    return kind_named(given["class_path"]) if "class_path" in given else None, settings


def kind_named(name: str) -> type[Task]:
    """The task kind of this class name or class path; of two with one name, ours."""
    kinds = {
        kind.__name__: kind
        for kind in sorted(all_kinds(Task), key=lambda kind: kind.__module__.startswith("src."))
    }
    module, _, short = name.rpartition(".")
    try:
        kind = getattr(import_module(module), short) if module else kinds[short]
    except (ImportError, AttributeError, KeyError):
        kind = None
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise UserError(f"is set to the unknown kind '{name}': {nearest(short, kinds)}")
    return kind


def with_settings(kind: Any, settings: dict[str, Any]) -> Task:
    """Builds a task of a kind with settings given by hand.

    Raises:
        UserError: The kind has no such setting, or it cannot have that value.
    """
    types = get_type_hints(kind)
    known = list(inspect.signature(kind).parameters)
    for key, given in settings.items():
        if key not in known:
            raise UserError(f"has no setting '{key}' as a {kind.__name__}: {nearest(key, known)}")
        if not fits(given, types[key]):
            raise UserError(
                f"has the setting {key} '{given}', where {' or '.join(expected(types[key]))} is expected"
            )
    try:
        return kind(
            **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in settings.items()
            }
        )
    except TypeError as error:
        raise UserError(f"cannot be built as a {kind.__name__}: {error}") from None


def fits(value: Any, kind: Any) -> bool:
    """Whether a value as YAML has it is of a type; lists are tuples there."""
    if get_origin(kind) in (Union, UnionType):
        return any(fits(value, option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(
            fits(item, get_args(kind)[0]) for item in value
        )
    if kind is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


def expected(kind: Any) -> list[str]:
    """A type in words, an entry for each of several."""
    if get_origin(kind) in (Union, UnionType):
        return list(dict.fromkeys(word for option in get_args(kind) for word in expected(option)))
    if get_origin(kind) is Literal:
        return [", ".join(map(str, get_args(kind)))]
    words = {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "a word",
        tuple: "a list",
        NoneType: "null",
    }
    return [words.get(get_origin(kind) or kind, str(kind))]


def task_from_plain(values: dict[str, Any]) -> Task:
    """Returns the task that ``Task.describe`` wrote down.

    Raises:
        UserError: Nothing that has been imported defines its kind, or one of its metrics: a file
            of strangers imports nothing.
    """
    kinds = {f"{kind.__module__}.{kind.__name__}": kind for kind in all_kinds(Task)}
    kind = kinds.get(values["kind"])
    if kind is None:
        raise UserError(
            f"is of the unknown kind '{values['kind']}': {nearest(values['kind'], kinds)}"
        )
    refuse_unknown_classes(values.get("metrics", ()))
    return with_settings(kind, {key: value for key, value in values.items() if key != "kind"})


def all_kinds(base: Any) -> list[type[Task]]:
    """Every task kind that is known."""
    return [kind for child in base.__subclasses__() for kind in (child, *all_kinds(child))]
