"""Plain values from files that may have been damaged: looked at as a whole, by types, before anything uses them."""

import json
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from math import isfinite
from pathlib import Path
from typing import (
    Annotated,
    Any,
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
        what: Where in it, and what belongs there.
        way_out: What to do.
    """

    def __init__(self, path: Path | str, what: str, way_out: str = "") -> None:
        super().__init__(
            f"{path} is damaged; {way_out} ({what})" if way_out else f"{path} is damaged: {what}"
        )


@dataclass(frozen=True)
class Such:
    """A condition on a value, for ``Annotated``.

    Attributes:
        words: What the value must be.
        holds: Whether it is.
    """

    words: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Such("at least 0", lambda value: value >= 0)]
SHOWN = 40  # characters of a wrong value


def read_json(path: Path | str, kind: Any, way_out: str = "") -> Any:
    """Reads a file whose content is of a type; TypedDicts may hold more keys than they name, dataclasses may not.

    Args:
        path: The file.
        kind: The type.
        way_out: What to do where the content is another.

    Raises:
        Damaged: It is something else.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"it is no JSON: {error}", way_out) from None
    if (wrong := mismatch(content, kind)) is not None:
        raise Damaged(path, wrong, way_out)
    return content


def mismatch(value: Any, kind: Any, place: str = "") -> str | None:
    """Says where plain values are not of a type, and what belongs there; None where all are.

    Args:
        value: Nested dicts and lists.
        kind: A type; a dict of a dataclass's fields stands for one, a list for a tuple.
        place: Where the value stands.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is NotRequired:
        return mismatch(value, args[0], place)
    if origin is Annotated:
        wrong = mismatch(value, args[0], place)
        fits = wrong is not None or all(such.holds(value) for such in args[1:])
        return wrong if fits else says(value, kind, place)
    if origin in (Union, types.UnionType):
        return either(value, kind, place)
    if is_dataclass(kind) or is_typeddict(kind):
        return of_keys(value, kind, place)
    if origin is dict and isinstance(value, dict):
        return first(mismatch(part, args[1], dotted(place, key)) for key, part in value.items())
    if origin in (list, tuple) and isinstance(value, list | tuple):
        return first(
            mismatch(part, args[0], f"{place}[{number}]") for number, part in enumerate(value)
        )
    return None if is_plain(value, kind) else says(value, kind, place)


def is_plain(value: Any, kind: Any) -> bool:
    """Returns whether a value is one of a type without parts; numbers are finite, and true and false are none."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is Any or kind is None:
        return kind is Any or value is None
    if kind is float:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) < 1e300
            and isfinite(value)
        )
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(kind, type) and isinstance(value, kind)


def either(value: Any, kind: Any, place: str) -> str | None:
    """Looks whether a value is of one of several types; an object is meant to be of the one that has its keys."""
    if any(mismatch(value, one, place) is None for one in get_args(kind)):
        return None
    for one in get_args(kind):
        if (
            is_dataclass(one)
            and isinstance(value, dict)
            and value.keys() == get_type_hints(one).keys()
        ):
            return mismatch(value, one, place)
    return says(value, kind, place)


def of_keys(value: Any, kind: Any, place: str) -> str | None:
    """Looks whether an object has the keys of a type, each with a value of its own type."""
    if not isinstance(value, dict):
        return says(value, kind, place)
    hints = get_type_hints(kind, include_extras=True)
    unknown = value.keys() - hints.keys() if is_dataclass(kind) else ()
    missing = {
        key for key, hint in hints.items() if get_origin(hint) is not NotRequired
    } - value.keys()
    if unknown or missing:
        return f"{dotted(place, min(unknown or missing))} {'belongs to nothing' if unknown else 'is missing'}"
    return first(
        mismatch(value[key], hint, dotted(place, key))
        for key, hint in hints.items()
        if key in value
    )


def first(found: Iterable[str | None]) -> str | None:
    """Returns the first that is not None."""
    return next((wrong for wrong in found if wrong is not None), None)


def dotted(place: str, key: str) -> str:
    """Returns the place of a key."""
    return f"{place}.{key}" if place else key


def says(value: Any, kind: Any, place: str) -> str:
    """Says what a value is, and what belongs in its place."""
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return f"{place or 'its content'} is {shown}, where {in_words(kind)} belongs"


def in_words(kind: Any) -> str:
    """Returns a type for people."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        conditions = ", ".join(such.words for such in args[1:])
        return conditions if args[0] is object else f"{in_words(args[0])} ({conditions})"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(in_words, args)))
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
