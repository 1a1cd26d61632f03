"""One stream of global batches for any number of ranks, which resumes in the middle of an epoch.

A global batch is a slice of the epoch's order, which depends on (seed, epoch) alone. It is cut into
one share per rank, and shares that come out short are filled up with ``PADDING``. So the union of
the ranks' batches does not depend on the number of ranks.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from src.batch import PADDING, Batch
from src.collectives import replica
from src.data.rows import BatchDataset
from src.data.workers import bound_waits, start_worker
from src.rng import make_generator


class GlobalBatches(SequentialSampler):
    """Yields this rank's row numbers (B,) of each global batch.

    It is a SequentialSampler by name only: Lightning recognises by this class a sampler that
    ``--overfit_batches`` must leave alone.

    Args:
        rows: Number of rows.
        batch_size: Size of a global batch, over all ranks.
        shuffle: Whether each epoch has a new order, instead of 0, 1, 2 ...
        seed: Seed of the orders.
    """

    def __init__(self, rows: int, batch_size: int, shuffle: bool, seed: int = 0) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.begin = (0, 0)  # (epoch, batch) where a resumed run begins

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]  # whole batches, not rows
        epoch, first = self.begin
        for batch in islice(self.batches(), first if epoch == self.epoch else 0, None):
            yield self.take_share(batch)

    def take_share(self, batch: Tensor) -> Tensor:
        """Returns this rank's share of a global batch, filled up with ``PADDING``."""
        rank, count = replica()
        share = -(-len(batch) // count)
        mine = batch[rank * share : (rank + 1) * share]

        # all ranks have batches of one size, so that each runs every step
        missing = share - len(mine)
        return torch.cat([mine, mine.new_full((missing,), PADDING)]) if missing else mine

    def batches(self) -> Iterator[Tensor]:
        """Yields the global batches of this epoch, a function of (seed, epoch) alone."""
        order = torch.arange(self.rows)
        if self.shuffle:
            generator = make_generator(self.seed, self.epoch)
            order = torch.randperm(self.rows, generator=generator)
        for k in range(len(self)):
            yield order[k * self.batch_size : (k + 1) * self.batch_size]

    def resume(self, epoch: int, step: int) -> None:
        """Continues after ``step`` batches of an epoch; after the last one with the next epoch."""
        self.begin = (epoch + 1, 0) if step >= len(self) else (epoch, step)
        self.epoch = self.begin[0]

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; Lightning calls this at the start of each."""
        self.epoch = epoch


class Batches:
    """An iterable over the batches of a split.

    This process prepares them itself, unless workers or pinned memory are asked for. For a single
    process, a DataLoader would cost 0.1 ms a batch; and Lightning would replace the sampler of a
    bare DataLoader for prediction.

    Args:
        rows: Maps row numbers (B,) to a Batch.
        sampler: Yields the row numbers of each batch.
        num_workers: Processes that prepare batches.
        pin_memory: Whether batches are pinned, for a faster copy to a GPU.
        timeout: Longest wait for a batch of a worker, in seconds.
    """

    batch_sampler = None  # Lightning reads it wherever there is a sampler

    def __init__(
        self,
        rows: BatchDataset,
        sampler: GlobalBatches,
        num_workers: int = 0,
        pin_memory: bool = False,
        timeout: float = 600.0,
    ) -> None:
        self.rows = rows
        self.sampler = sampler
        self.loader: DataLoader[Batch] | None = None
        if not num_workers and not pin_memory:
            return
        settings: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory}
        if num_workers:
            settings["persistent_workers"] = True
            settings["timeout"] = timeout
            settings["worker_init_fn"] = start_worker
        self.loader = DataLoader(rows, sampler=sampler, batch_size=None, **settings)

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def _iterator(self) -> Iterator[Batch] | None:
        """The iterator whose workers Lightning ends after a run.

        Without it, the workers of a failed run would hold up this process for 5 s each.
        """
        return None if self.loader is None else self.loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: None) -> None:
        if self.loader is not None:
            self.loader._iterator = iterator

    def __iter__(self) -> Iterator[Batch]:
        # A generator starts the workers at its first batch. Lightning also asks for an iterator
        # only to see whether there is one.
        if self.loader is None:
            yield from map(self.rows.__getitem__, self.sampler)
        elif self.loader.num_workers:
            yield from bound_waits(self.loader, self.loader.timeout)
        else:
            yield from self.loader
