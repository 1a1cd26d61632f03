"""States the defaults of a class that is chosen in the place of another.

jsonargparse starts from the class that a signature has as its default, and keeps those of its
settings that the chosen class happens to know: AdamW's weight decay in SGD. So each of them is
stated before.
"""

import inspect
from collections.abc import Iterable
from typing import Any

from src.cli.hints import Hints, kinds_of
from src.cli.settings import Required, Setting, count_given, list_settings


def state_defaults(value: Any, hints: Hints, default: Any = None) -> Any:
    """Returns nested settings in which each class that replaces a default states its own.

    Args:
        value: The choice of a class: its path, or a mapping with a class_path.
        hints: The types that the value may have.
        default: The class that the signature has as its default.
    """
    if isinstance(value, list):
        return [state_defaults(item, hints) for item in value]
    # a setting without a default may be plain text
    if isinstance(value, str) and inspect.isclass(default) and default is not Required:
        value = {"class_path": value}
    if not isinstance(value, dict) or "class_path" not in value:
        return value
    kinds = kinds_of(hints, value)
    if not kinds or not inspect.isclass(kinds[0]):
        return value

    given = max((count_given(hint) for hint in hints), default=0)
    replaced: set[str] = set()
    if inspect.isclass(default) and default is not kinds[0]:
        replaced = {setting.name for setting in list_settings(default, given)}
    inner = state_settings(value.get("init_args") or {}, list_settings(kinds[0], given), replaced)
    return value | {"init_args": inner} if inner else value


def state_settings(
    stated: dict[str, Any], settings: Iterable[Setting], replaced: set[str]
) -> dict[str, Any]:
    """Returns the settings of a class, with the defaults of some.

    Args:
        stated: The settings that are stated.
        settings: All settings of the class.
        replaced: The settings whose defaults are to be stated.
    """
    result = dict(stated)
    for setting in settings:
        name = setting.name
        if name in result:
            result[name] = state_defaults(result[name], setting.hints, setting.default)
        elif name in replaced and is_plain(setting.default):
            result[name] = setting.default
    return result


def is_plain(default: Any) -> bool:
    """Returns whether a default can be written into a configuration."""
    if isinstance(default, list | tuple):
        return all(map(is_plain, default))
    return default is None or isinstance(default, str | int | float | bool)
