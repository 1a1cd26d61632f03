"""JSON files whose whole content is held against a type before anything uses it."""

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from math import isfinite
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from src.errors import UserError


class Damaged(UserError):
    """A file that does not hold what it must.

    Args:
        path: The file.
        what: The place in the file, and what belongs there.
        way_out: How to go on.
    """

    def __init__(self, path: Path | str, what: str, way_out: str = "") -> None:
        super().__init__(
            f"{path} is damaged; {way_out} ({what})" if way_out else f"{path} is damaged: {what}"
        )


@dataclass(frozen=True)
class Such:
    """A condition on a value, for ``Annotated``.

    Attributes:
        words: The condition in words.
        holds: Returns whether a value meets it.
    """

    words: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Such("at least 0", lambda value: value >= 0)]
SHOWN = 40  # characters of a wrong value


def read_json(path: Path | str, kind: Any, way_out: str = "") -> Any:
    """Reads a JSON file whose content is of a type.

    A TypedDict may hold more keys than it names, a dataclass may not.

    Args:
        path: The file.
        kind: The type.
        way_out: How to go on where the content is of another type.

    Raises:
        Damaged: It is no JSON, or of another type.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"it is no JSON: {error}", way_out) from None
    if (wrong := find_mismatch(content, kind)) is not None:
        raise Damaged(path, wrong, way_out)
    return content


def to_json(content: Mapping[str, Any]) -> bytes:
    """Returns a JSON file's bytes; a number that is not finite becomes null, as JSON has no NaN."""
    return (json.dumps(replace_undefined(content), indent=2, allow_nan=False) + "\n").encode()


def replace_undefined(content: Any) -> Any:
    """Returns nested values with None for each number that is NaN or infinite."""
    if isinstance(content, Mapping):
        return {key: replace_undefined(value) for key, value in content.items()}
    if isinstance(content, list):
        return [replace_undefined(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content


def find_mismatch(value: Any, kind: Any, place: str = "") -> str | None:
    """Says where plain values are not of a type, and what belongs there; None where all are.

    Args:
        value: Nested dicts and lists.
        kind: A type; a dict of a dataclass's fields stands for one, a list for a tuple.
        place: The dotted key of the value.
    """
    origin = get_origin(kind)
    args = get_args(kind)
    if origin is NotRequired:
        return find_mismatch(value, args[0], place)
    if origin is Annotated:
        wrong = find_mismatch(value, args[0], place)
        if wrong is not None or all(such.holds(value) for such in args[1:]):
            return wrong
        return describe_mismatch(value, kind, place)
    if origin in (Union, types.UnionType):
        return find_mismatch_of_union(value, kind, place)
    if is_dataclass(kind) or is_typeddict(kind):
        return find_mismatch_of_keys(value, kind, place)
    if origin is dict and isinstance(value, dict):
        for key, item in value.items():
            if (wrong := find_mismatch(item, args[1], join_key(place, key))) is not None:
                return wrong
        return None
    if origin in (list, tuple) and isinstance(value, list | tuple):
        for number, item in enumerate(value):
            if (wrong := find_mismatch(item, args[0], f"{place}[{number}]")) is not None:
                return wrong
        return None
    return None if is_plain(value, kind) else describe_mismatch(value, kind, place)


def is_plain(value: Any, kind: Any) -> bool:
    """Returns whether a value is of a type that has no elements.

    Numbers must be finite, and true and false are no numbers.
    """
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is Any or kind is None:
        return kind is Any or value is None
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and abs(value) < 1e300 and isfinite(value)
    if kind is int:
        return isinstance(value, int) and abs(value) < 2**63
    return isinstance(kind, type) and isinstance(value, kind)


def find_mismatch_of_union(value: Any, kind: Any, place: str) -> str | None:
    """Says why a value is of none of several types.

    Where it has exactly the keys of a dataclass it is held against that one alone, so that the
    message names the wrong entry.
    """
    if any(find_mismatch(value, one, place) is None for one in get_args(kind)):
        return None
    for one in get_args(kind):
        if not is_dataclass(one) or not isinstance(value, dict):
            continue
        if value.keys() == get_fields(one).keys():
            return find_mismatch(value, one, place)
    return describe_mismatch(value, kind, place)


def get_fields(kind: Any) -> dict[str, Any]:
    """Returns {field: its type} of a dataclass or a TypedDict, without attributes of the class."""
    hints = get_type_hints(kind, include_extras=True)
    return {key: hint for key, hint in hints.items() if get_origin(hint) is not ClassVar}


def find_mismatch_of_keys(value: Any, kind: Any, place: str) -> str | None:
    """Says which key of an object is missing, unknown, or has a value of another type."""
    if not isinstance(value, dict):
        return describe_mismatch(value, kind, place)
    hints = get_fields(kind)
    unknown = value.keys() - hints.keys() if is_dataclass(kind) else set()
    if unknown:
        return f"{join_key(place, min(unknown))} belongs to nothing"
    needed = {key for key, hint in hints.items() if get_origin(hint) is not NotRequired}
    missing = needed - value.keys()
    if missing:
        return f"{join_key(place, min(missing))} is missing"

    for key, hint in hints.items():
        if key in value:
            wrong = find_mismatch(value[key], hint, join_key(place, key))
            if wrong is not None:
                return wrong
    return None


def join_key(place: str, key: str) -> str:
    """Returns the dotted key of an entry."""
    return f"{place}.{key}" if place else key


def describe_mismatch(value: Any, kind: Any, place: str) -> str:
    """Says what a value is, and what belongs in its place."""
    shown = repr(value)
    if len(shown) > SHOWN:
        shown = f"{shown[:SHOWN]}..."
    return f"{place or 'its content'} is {shown}, where {name_type(kind)} belongs"


def name_type(kind: Any) -> str:
    """Returns a type as people say it."""
    origin = get_origin(kind)
    args = get_args(kind)
    if origin is Annotated:
        conditions = ", ".join(such.words for such in args[1:])
        return conditions if args[0] is object else f"{name_type(args[0])} ({conditions})"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(name_type, args)))
    if origin is Literal:
        return " or ".join(map(repr, args))
    if is_dataclass(kind) or is_typeddict(kind) or origin is dict:
        return "an object"
    words = {
        float: "a finite number",
        int: "a whole number",
        bool: "true or false",
        str: "text",
        type(None): "null",
        None: "null",
    }
    return words.get(kind) or ("a list" if origin in (list, tuple) else str(kind))
