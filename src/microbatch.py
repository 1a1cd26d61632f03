"""Which rows of the global batch run now, and what is drawn for them: the same whether they run together or in slices."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from src.collectives import replica


@dataclass(slots=True)
class Slice:
    """Some of this replica's rows.

    Attributes:
        first: The place of the first of them among this replica's rows.
        rows: How many this replica has in all.
        keys: What random layers have drawn for the step, in the order of their calls; the first
            slice to come draws.
        calls: How many of them this slice has used.
    """

    first: int
    rows: int
    keys: list[int]
    calls: int = 0


_slice: ContextVar[Slice | None] = ContextVar(
    "slice", default=None
)  # of each thread: devices have their own in a backward pass


@contextmanager
def slice_of_rows(first: int, rows: int, keys: list[int]) -> Iterator[None]:
    """While a slice of this replica's rows runs, and while it is computed once more.

    Args:
        first: The place of its first row among this replica's.
        rows: How many rows this replica has in all.
        keys: The same list for every slice that runs through the same layers.
    """
    token = _slice.set(Slice(first, rows, keys))
    try:
        yield
    finally:
        _slice.reset(token)


def on_slice(
    run: Callable[[Any], Any], state: Any, first: int, rows: int, keys: list[int], recompute: bool
) -> Any:
    """Runs a stage on a slice, see :func:`slice_of_rows`.

    Args:
        run: The stage.
        state: The slice of what it reads.
        first: The place of the slice's first row.
        rows: How many rows there are in all.
        keys: Of this stage.
        recompute: Whether it keeps its inputs alone, and is computed once more in the backward
            pass.
    """

    def inside(state: Any) -> Any:
        with slice_of_rows(first, rows, keys):
            return run(state)

    return (
        checkpoint(inside, state, use_reentrant=False)
        if recompute and torch.is_grad_enabled()
        else inside(state)
    )


def place_and_key(rows: int) -> tuple[int, int]:
    """For a random layer's call on so many rows: the place of the first in the global batch, and the key of the call.

    The key is drawn from torch's CPU generator, once for all slices.
    """
    part = _slice.get()
    if part is None:
        return replica()[0] * rows, int(torch.randint(2**62, ()))
    if part.calls == len(part.keys):
        part.keys.append(int(torch.randint(2**62, ())))
    part.calls += 1
    return replica()[0] * part.rows + part.first, part.keys[part.calls - 1]
