"""Global batches of sequences of like length, the same on any number of devices."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from src.data.stream import GlobalBatches
from src.rng import make_generator

WINDOW = 32  # batches whose rows are sorted by length together


@dataclass(frozen=True, slots=True)
class Share:
    """One rank's share of a global batch of sequences.

    Attributes:
        ids: (B,) row numbers, ``PADDING`` at the end where they fill up the batch.
        length: Length of the longest sequence of the global batch, to which every rank pads.
        key: What the random changes of the inputs in this epoch depend on; None for no changes.
    """

    ids: Tensor
    length: int
    key: int | None = None


class LengthBatches(GlobalBatches):
    """Yields this rank's share of global batches whose sequences are about equally long.

    Each epoch has a new order of the rows. Sections of it, 32 batches long, are sorted by length
    and cut into batches, which come in random order. All of this depends on (seed, epoch) alone.
    Without ``shuffle`` the rows of the whole split are sorted, and the shortest come first.

    Args:
        lengths: (rows,) Length of each row.
        batch_size: Rows of a global batch, over all ranks.
        shuffle: Whether each epoch has a new order.
        seed: Seed of the orders.
    """

    def __init__(self, lengths: Tensor, batch_size: int, shuffle: bool, seed: int = 0) -> None:
        super().__init__(len(lengths), batch_size, shuffle, seed)
        self.lengths = lengths

    def batches(self) -> Iterator[Tensor]:
        """Yields the global batches of this epoch, a function of (seed, epoch) alone."""
        if not self.shuffle:
            yield from self.lengths.argsort(stable=True).split(self.batch_size)
            return
        generator = make_generator(self.seed, self.epoch)
        order = torch.randperm(self.rows, generator=generator)
        for window in order.split(WINDOW * self.batch_size):
            by_length = window[self.lengths[window].argsort(stable=True)]
            batches = by_length.split(self.batch_size)
            for k in torch.randperm(len(batches), generator=generator).tolist():
                yield batches[k]

    def take_share(self, batch: Tensor) -> Share:  # type: ignore[override]  # sequences read it
        """Returns this rank's share of a global batch, and what all ranks share."""
        key = None
        if self.shuffle:
            generator = make_generator(self.seed, self.epoch, 1)
            key = int(torch.randint(2**62, (), generator=generator))
        return Share(super().take_share(batch), int(self.lengths[batch].max()), key)
