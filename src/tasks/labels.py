"""Labels: as they are read from a file, as a model's targets, and how a missing one is marked."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError

MISSING = -100  # the missing label in integer targets; NaN is the one in float targets

Label = str | int | float | bool


class BadLabel(UserError):
    """A label that a task cannot have; ``row`` counts from 0 in the values given."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


# -- labels as targets -----------------------------------------------------------------------------
def is_labelled(targets: Tensor) -> Tensor:
    """Returns where a label is known: bool, the shape of ``targets``."""
    return ~targets.isnan() if targets.is_floating_point() else targets != MISSING


def get_missing(targets: Tensor) -> float:
    """Returns the number that marks a missing label in targets of this type."""
    return float("nan") if targets.is_floating_point() else MISSING


def remove_rows(targets: Tensor, gone: Tensor) -> Tensor:
    """Returns targets (N, ...) in which the labels of some rows are missing; ``gone`` is (N,)."""
    if not gone.any():
        return targets
    return targets.masked_fill(gone.view(-1, *[1] * (targets.ndim - 1)), get_missing(targets))


def to_integers(targets: Tensor) -> Tensor:
    """Turns float targets of 0, 1 or NaN into integers, ``MISSING`` for NaN."""
    return torch.where(targets.isnan(), MISSING, targets).long()


def pair_with_known(targets: Tensor) -> list[tuple[Any, bool]]:
    """Returns each label of (B,) targets as a plain value, with whether it is known."""
    return list(zip(targets.tolist(), is_labelled(targets).tolist(), strict=True))


# -- labels as read --------------------------------------------------------------------------------
def is_known(values: np.ndarray) -> np.ndarray:
    """Returns where labels as read are known: bool, the shape of ``values``."""
    if values.dtype.kind == "f":
        return ~np.isnan(values)
    if values.dtype.kind != "O":
        return np.ones(values.shape, dtype=bool)
    import pandas as pd  # half a second to import: only where labels are read

    return cast(np.ndarray, pd.notna(values))


def to_numbers(values: np.ndarray) -> np.ndarray:
    """Turns labels as read into float64 numbers, NaN where a label is missing.

    Raises:
        BadLabel: A label is no finite number.
    """
    mask = is_known(values)
    numbers = np.full(values.shape, np.nan)
    try:
        numbers[mask] = values[mask].astype(np.float64)
    except (TypeError, ValueError):
        # numpy does not say which one it was
        for index in np.argwhere(mask):
            value = values[tuple(index)]
            try:
                float(value)
            except (TypeError, ValueError):
                raise BadLabel(
                    int(index[0]), f"holds {value!r} where a number is expected"
                ) from None

    infinite = np.argwhere(np.isinf(numbers))
    if len(infinite):
        index = infinite[0]
        raise BadLabel(int(index[0]), f"holds {numbers[tuple(index)]}; targets must be finite")
    return numbers


def find_positions(classes: Sequence[Label], values: np.ndarray) -> np.ndarray:
    """Turns labels as read into positions in ``classes``, ``MISSING`` where a label is missing.

    Raises:
        BadLabel: A label is none of the classes.
    """
    import pandas as pd  # half a second to import: only where labels are read

    place = {label: i for i, label in enumerate(classes)}
    codes, uniques = pd.factorize(values.ravel())
    found = [place.get(label, -1) for label in uniques]
    # a code of -1 is a missing label, and takes the last entry of the look-up
    positions = np.array([*found, MISSING], dtype=np.int64)[codes].reshape(values.shape)

    unknown = np.argwhere(positions == -1)
    if len(unknown):
        index = unknown[0]
        shown = ", ".join(map(str, classes[:8])) + (", ..." if len(classes) > 8 else "")
        raise BadLabel(
            int(index[0]),
            f"holds the class '{values[tuple(index)]}', which the training labels ({shown}) "
            "do not have",
        )
    return positions


def find_classes(values: np.ndarray) -> tuple[Label, ...]:
    """Returns the known labels without repeats, numbers by size before words by alphabet."""
    import pandas as pd  # half a second to import: only where labels are read

    uniques = pd.unique(values[is_known(values)].ravel())
    found = [v.item() if isinstance(v, np.generic) else v for v in uniques]
    return tuple(sorted(found, key=lambda v: (isinstance(v, str), v)))
