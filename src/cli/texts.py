"""Gives each key whose type is text the text as it was written.

YAML tells numbers from text by their looks, but what ``2019`` is depends on where it stands: a
number of epochs, or the name of a column. The type of the setting that reads a value decides:
``--data.targets '[2019, 1e3, 012]'`` names three columns, as they stand in the file.
"""

import math
from typing import Any, Literal, get_args, get_origin

from src.cli.hints import Hints, below, elements
from src.files.yaml12 import Bool, Int, Written


def settle(value: Any, hints: Hints) -> Any:
    """Returns a value read from YAML as its types want it: text as written, or plain numbers.

    Args:
        value: What :func:`src.files.yaml12.load_as_written` read.
        hints: The types that the setting may have; none where nobody knows.
    """
    if isinstance(value, dict):
        return {name: settle_below(item, hints, value, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        inner = tuple(member for hint in hints for member in elements(hint))
        return [settle(item, inner) for item in value]
    if not isinstance(value, Written):
        return value
    if is_text(value, hints):
        return value.text
    if isinstance(value, Bool):
        return bool(value)
    if isinstance(value, Int):
        return int(value)
    # JSON has no word for inf and nan
    return float(value) if math.isfinite(value) else value.text


def settle_below(item: Any, hints: Hints, owner: dict[Any, Any], name: str) -> Any:
    """Returns what stands under a name of a mapping; ``init_args`` holds a class's settings."""
    if name == "init_args" and isinstance(item, dict):
        return {key: settle(value, below(hints, owner, str(key))) for key, value in item.items()}
    return settle(item, below(hints, owner, name))


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

    if isinstance(value, Int):
        return not {int, float} & set(hints) or value.text != str(int(value))
    return float not in hints or value.text != str(float(value))
