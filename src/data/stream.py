"""One stream of global batches, dealt to any number of ranks, resumable in mid-epoch.

A global batch is a slice of the epoch's order, which depends on (seed, epoch) alone. It is cut into
one part per rank; parts that come out short are filled with ``PADDING``. So the union of the ranks'
batches is the same on any number of ranks.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from src.batch import PADDING, Batch
from src.collectives import replica
from src.data.workers import awaited, begin
from src.rng import make_generator


class GlobalBatches(SequentialSampler):
    """Yields this rank's row numbers (B,) of each global batch.

    It is a SequentialSampler by name only: that is how Lightning recognises a sampler that
    ``--overfit_batches`` must leave alone.

    Args:
        rows: Number of rows.
        batch_size: Size of a global batch, over all ranks.
        shuffle: Draw a new order each epoch instead of 0, 1, 2 ...
        seed: Seed of the orders.
    """

    def __init__(self, rows: int, batch_size: int, shuffle: bool, seed: int = 0) -> None:
        self.rows, self.batch_size, self.shuffle, self.seed = rows, batch_size, shuffle, seed
        self.epoch = 0
        self.begin = (0, 0)  # (epoch, batch) where a resumed run begins

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]  # whole batches, not single rows
        rank, count = replica()
        epoch, first = self.begin
        for batch in islice(self.batches(), first if epoch == self.epoch else 0, None):
            share = -(-len(batch) // count)
            mine = batch[rank * share : (rank + 1) * share]
            yield (
                torch.cat([mine, mine.new_full((share - len(mine),), PADDING)])
                if len(mine) < share
                else mine
            )

    def batches(self) -> Iterator[Tensor]:
        """Yields the global batches of this epoch, a function of (seed, epoch) alone."""
        order = (
            torch.randperm(self.rows, generator=make_generator(self.seed, self.epoch))
            if self.shuffle
            else torch.arange(self.rows)
        )
        for k in range(len(self)):
            yield order[k * self.batch_size : (k + 1) * self.batch_size]

    def resume(self, epoch: int, step: int) -> None:
        """Continues after ``step`` batches of an epoch; the end of an epoch is the start of the next."""
        self.begin = (epoch + 1, 0) if step >= len(self) else (epoch, step)
        self.epoch = self.begin[0]

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch


class Batches:
    """An iterable over the batches of a split, made in this process, or by workers and in pinned memory where that is asked for.

    A DataLoader for one process alone would cost 0.1 ms a batch; and Lightning gives a bare one
    another sampler for prediction.

    Args:
        rows: Maps row numbers (B,) to a Batch.
        sampler: Says which.
        num_workers: Processes that prepare batches.
        pin_memory: Pin them, for a faster copy to a GPU.
        timeout: Seconds that a batch of theirs is waited for.
    """

    batch_sampler = None  # where Lightning looks, having found a sampler

    def __init__(
        self,
        rows: Dataset[Batch],
        sampler: GlobalBatches,
        num_workers: int = 0,
        pin_memory: bool = False,
        timeout: float = 600.0,
    ) -> None:
        self.rows, self.sampler = rows, sampler
        self.loader: DataLoader[Batch] | None = None
        if num_workers or pin_memory:
            settings: dict[str, Any] = {"num_workers": num_workers}
            if num_workers:
                settings |= {
                    "persistent_workers": True,
                    "timeout": timeout,
                    "worker_init_fn": begin,
                }
            self.loader = DataLoader(
                rows, sampler=sampler, batch_size=None, pin_memory=pin_memory, **settings
            )

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def _iterator(self) -> Iterator[Batch] | None:
        """Where Lightning looks for workers to end; else those of a failed run hold up this process, 5 s each, when they go."""
        return None if self.loader is None else self.loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: None) -> None:
        if self.loader is not None:
            self.loader._iterator = iterator

    def __iter__(self) -> Iterator[Batch]:
        # a generator: workers start at the first batch, since Lightning also asks for an iterator
        # only to see whether there is one
        if self.loader is None:
            yield from map(self.rows.__getitem__, self.sampler)
        elif self.loader.num_workers:
            yield from awaited(self.loader, self.loader.timeout)
        else:
            yield from self.loader
