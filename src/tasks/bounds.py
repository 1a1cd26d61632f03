"""Numbers that are bounds, such as >10 and <0.1, as measurements beyond an instrument's range."""

import re

import numpy as np

from src.tasks.labels import BadLabel, is_known, to_numbers

# >10, < 0.1, >=10 and the like; equality makes no difference for a continuous number
MARK = r"^\s*([<>\u2264\u2265])\s*=?\s*"
SIGNS = {">": 1.0, "\u2265": 1.0, "<": -1.0, "\u2264": -1.0}


def split_bounds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits labels into numbers and the signs of their bounds.

    Args:
        values: (N,) numbers, or texts such as '>10'; None or NaN where missing.

    Returns:
        (N,) numbers and (N,) signs: 1 for '>', -1 for '<', 0 for a number as it is; both NaN where
        the label is missing.

    Raises:
        BadLabel: What is behind the mark is no finite number.
    """
    bare = values.astype(object)
    signs = np.zeros(len(values))
    for row, value in enumerate(bare):
        if not isinstance(value, str):
            continue
        match = re.match(MARK, value)
        if match:
            bare[row] = value[match.end() :]
            signs[row] = SIGNS[match[1]]
    try:
        numbers = to_numbers(bare)
    except BadLabel as error:
        shown = values[error.row]
        raise BadLabel(
            error.row, f"holds {shown!r} where a finite number is expected, or a bound such as >10"
        ) from None
    return numbers, np.where(is_known(bare), signs, np.nan)


def write_bound(number: float, sign: float, digits: int = 5) -> str:
    """Returns a label as people write it: 12.5, >10 or <0.1."""
    mark = {1.0: ">", -1.0: "<"}.get(sign, "")
    return f"{mark}{number:.{digits}g}"
