"""Settings of images with maps: how a person writes them."""

from collections.abc import Mapping
from typing import Any

from src.errors import UserError


def as_size(key: str, given: list[int] | None) -> tuple[int, int] | None:
    """Reads [height, width].

    Raises:
        UserError: It has another form.
    """
    if given is None:
        return None
    if len(given) != 2 or min(given) < 1:
        raise UserError(f"data.{key} is {given}; it must be [height, width], each at least 1")
    return given[0], given[1]


def merge_settings(defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns declarations of tasks with the settings of a data set under those given by hand."""
    merged = {}
    for name, settings in defaults.items():
        own = (given or {}).get(name, {})
        # another kind, named by hand, starts from its own defaults
        replaces = not isinstance(own, dict) or "class_path" in own
        merged[name] = own if replaces else {**settings, **own}
    unknown = {name: own for name, own in (given or {}).items() if name not in defaults}
    return merged | unknown
