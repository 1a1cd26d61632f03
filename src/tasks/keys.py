"""Hashable keys of settings."""

from collections.abc import Hashable

import numpy as np
from torch import Tensor


def to_key(value: object) -> Hashable:
    """Returns a hashable stand-in: containers and tensors by content, other unhashables by id."""
    if isinstance(value, Tensor | np.ndarray):
        return (tuple(value.shape), to_key(value.tolist()))
    if isinstance(value, list | tuple):
        return tuple(to_key(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, to_key(item)) for key, item in sorted(value.items(), key=repr))
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value
