"""The settings of a class as a person reads them: names, types, defaults, and what they mean."""

import inspect
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from docstring_parser import ParseError, parse

from src.cli.hints import Hints, elements, is_choice, settings_of
from src.files.yaml12 import Written

WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    NoneType: "null",
    dict: "mapping",
}
# settings that follow from others, by the key of their class
NOT_TO_BE_SET = {
    "data": ("seed", "schema_path"),
    "model": ("tasks", "input_shape", "groups", "seed"),
}


class Required:
    """Stands for the default of a setting that has none."""


@dataclass
class Setting:
    """One setting of a class."""

    name: str
    hints: Hints
    default: Any
    doc: str


def list_settings(kind: Any, given: int = 0) -> Iterator[Setting]:
    """Yields the settings of a class, and of the bases that it hands settings on to.

    Args:
        kind: The class, or a function that makes one.
        given: The number of arguments that whoever makes it gives.
    """
    hints = settings_of(kind)
    docs = read_docs(kind)
    seen = {"self"}
    for owner in kind.__mro__ if inspect.isclass(kind) else [kind]:
        if owner is object or (inspect.isclass(owner) and "__init__" not in owner.__dict__):
            continue
        parameters = list(inspect.signature(owner).parameters.values())[given:]
        given = 0
        for parameter in parameters:
            several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if several or parameter.name in seen:
                continue
            seen.add(parameter.name)
            default = Required if parameter.default is parameter.empty else parameter.default
            yield Setting(
                parameter.name, hints.get(parameter.name, ()), default, docs.get(parameter.name, "")
            )
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return


def count_given(hint: Any) -> int:
    """Returns how many arguments the caller of a factory gives."""
    arguments = get_args(hint)
    return len(arguments[0]) if arguments and isinstance(arguments[0], list) else 0


def read_docs(kind: Any) -> dict[str, str]:
    """Returns what the docstrings of a class and its bases say of each setting."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__) if inspect.isclass(kind) else [kind]:
        if owner is object:
            continue
        texts = [owner.__doc__]
        if inspect.isclass(owner):
            texts.insert(0, getattr(owner.__dict__.get("__init__"), "__doc__", None))
        for text in texts:
            with suppress(ParseError):  # a docstring in some other form
                for param in parse(text or "").params:
                    found[param.arg_name] = " ".join(str(param.description or "").split())
    return found


def describe(kind: Any) -> str:
    """Returns what a class is, without its settings."""
    text = "\n" + inspect.cleandoc(kind.__doc__ or "")
    for heading in ("\nArgs:", "\nAttributes:", "\nArguments:", "\n.. math", "\nExample"):
        text = text.partition(heading)[0]
    return text.strip()


def in_words(hints: Hints) -> str:
    """Returns the types of a setting as a person says them."""
    words: list[str] = []
    for hint in hints:
        origin = get_origin(hint)
        if origin is Literal:
            words += [str(choice) for choice in get_args(hint)]
        elif is_choice((hint,)):
            words.append("class")
        elif inspect.isclass(origin) and origin is not dict:
            words.append(f"list of {in_words(elements(hint))}")
        else:
            kind: Any = origin or hint
            words.append(WORDS.get(kind, getattr(hint, "__name__", str(hint))))
    return " or ".join(dict.fromkeys(words))


def as_typed(value: Any) -> str:
    """Returns a value as one would write it."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__name__
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_typed(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_typed, value)) + "]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
