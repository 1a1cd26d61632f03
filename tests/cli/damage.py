"""Ways to damage the files of a run: each field of a JSON file gone, or of another kind."""

import copy
from collections.abc import Iterator
from typing import Any

GONE = object()
VALUES: tuple[Any, ...] = (
    *(GONE, None, [], {}, "garbage", -1, 2.5, True, 10**30, 1e308),
    *([["x", {"y": [None]}]], {"a": {"b": [1]}}),
)


def places(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields where values stand, outer ones first; the whole is ()."""
    yield at
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from places(content[key], (*at, key))


def damaged(content: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yields (where, the content with another value there)."""
    for at in places(content):
        for value in VALUES:
            if not at:
                if value is not GONE:
                    yield at, value
                continue
            changed = copy.deepcopy(content)
            inner = changed
            for key in at[:-1]:
                inner = inner[key]
            if value is GONE:
                del inner[at[-1]]
            elif type(inner[at[-1]]) is type(value) and inner[at[-1]] == value:
                continue
            else:
                inner[at[-1]] = value
            yield at, changed
