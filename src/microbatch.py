"""Slices of a batch that run one after the other, and draw what the whole batch would draw.

A random layer draws one key for each call, from which the numbers of all rows follow by their
places in the global batch. So a row gets the same numbers whether the rows run together or in
slices, and on any number of devices.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from src.collectives import replica

S = TypeVar("S")
R = TypeVar("R")


@dataclass(slots=True)
class Slice:
    """Some of this replica's rows.

    Attributes:
        first: The place of the first of them among this replica's rows.
        rows: The number of rows that this replica has in all.
        keys: The keys that random layers have drawn for the step, in the order of their calls; the
            first slice to come draws them.
        calls: The number of keys that this slice has used.
    """

    first: int
    rows: int
    keys: list[int]
    calls: int = 0


# a context variable, since devices have threads of their own in a backward pass
_slice: ContextVar[Slice | None] = ContextVar("slice", default=None)


@contextmanager
def slice_of_rows(first: int, rows: int, keys: list[int]) -> Iterator[None]:
    """Tells random layers which slice runs, also where it is computed once more.

    Args:
        first: The place of its first row among this replica's.
        rows: The number of rows that this replica has in all.
        keys: The same list for every slice that runs through the same layers.
    """
    token = _slice.set(Slice(first, rows, keys))
    try:
        yield
    finally:
        _slice.reset(token)


def run_on_slice(
    stage: Callable[[S], R], state: S, first: int, rows: int, keys: list[int], recompute: bool
) -> R:
    """Runs a stage on a slice, see :func:`slice_of_rows`.

    Args:
        stage: The stage.
        state: The slice of the stage's input.
        first: The place of the slice's first row.
        rows: The number of rows in all.
        keys: The keys of this stage.
        recompute: Whether the stage keeps its inputs alone, and is computed once more in the
            backward pass.
    """

    def run(state: S) -> R:
        with slice_of_rows(first, rows, keys):
            return stage(state)

    if recompute and torch.is_grad_enabled():
        output: R = checkpoint(run, state, use_reentrant=False)
        return output
    return run(state)


def place_and_key(rows: int) -> tuple[int, int]:
    """Returns where the rows of a random layer's call begin in the global batch, and its key.

    The key is drawn from torch's CPU generator, once for all slices.

    Args:
        rows: The number of rows of the call.
    """
    part = _slice.get()
    if part is None:
        return replica()[0] * rows, int(torch.randint(2**62, ()))
    if part.calls == len(part.keys):
        part.keys.append(int(torch.randint(2**62, ())))
    part.calls += 1
    return replica()[0] * part.rows + part.first, part.keys[part.calls - 1]
