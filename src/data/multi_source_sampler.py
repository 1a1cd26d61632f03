"""One stream of global batches over the rows of several sources."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, count
from typing import Literal

import torch
from torch import Tensor

from src.data.stream import GlobalBatches
from src.rng import make_generator

Sampler = Literal["proportional", "temperature", "shares", "round_robin", "min_cycle", "max_cycle"]
TOGETHER = ("min_cycle", "max_cycle")  # each step holds a batch of every source


class MultiSourceBatches(GlobalBatches):
    """Yields global batches of the rows of several sources, which are numbered one after the other.

    The order of the p-th pass over source i in an epoch is a function of (seed, epoch, i, p), so
    that (epoch, step) is all that a resumed run needs.

    Args:
        rows: Number of rows of each source.
        sizes: Batch size of each source.
        sampler: How sources take turns, as in :class:`~src.data.sources.Sources`.
        temperature: T of the sampler ``temperature``, as in :class:`~src.data.sources.Sources`.
        shares: The share of each source in the steps, of the sampler ``shares``.
        shuffle: Whether each epoch has new orders; otherwise rows come in order, and the turns of
            the sources are spread evenly.
        seed: Seed of the orders.
    """

    def __init__(
        self,
        rows: Sequence[int],
        sizes: Sequence[int],
        sampler: Sampler,
        temperature: float,
        shuffle: bool,
        seed: int = 0,
        shares: Sequence[float] = (),
    ) -> None:
        super().__init__(sum(rows), max(sizes), shuffle, seed)
        starts = accumulate(rows, initial=0)
        self.sources = list(zip(rows, sizes, starts, strict=False))  # rows, batch size, first row
        self.sampler = sampler

        # how many turns each source has in an epoch
        batches = [-(-n // size) for n, size, _ in self.sources]
        if sampler == "proportional":
            self.turns = batches
        elif sampler == "temperature":
            weights = [(n / max(rows)) ** (1 / temperature) for n in rows]
            self.turns = apportion(sum(batches), weights)
        elif sampler == "shares":
            # an epoch has each row of the largest share once
            largest = max(range(len(rows)), key=lambda i: shares[i])
            steps = batches[largest] / shares[largest]
            self.turns = [round(steps * share) for share in shares]
        else:
            turns = min(batches) if sampler == "min_cycle" else max(batches)
            self.turns = [turns] * len(rows)

    def __len__(self) -> int:
        return self.turns[0] if self.sampler in TOGETHER else sum(self.turns)

    def batches(self) -> Iterator[Tensor]:
        """Yields the global batches of this epoch.

        Each holds rows of one source, or a batch of each source side by side.
        """
        streams = [self._repeat(source, self.epoch) for source in range(len(self.sources))]
        if self.sampler in TOGETHER:
            for _ in range(len(self)):
                yield torch.cat([next(stream) for stream in streams])
        else:
            for source in self._order_turns().tolist():
                yield next(streams[source])

    def _order_turns(self) -> Tensor:
        """Returns the source of each step."""
        sources = torch.arange(len(self.turns)).repeat_interleave(torch.tensor(self.turns))
        if self.shuffle and self.sampler != "round_robin":
            generator = make_generator(self.seed, self.epoch)
            return sources[torch.randperm(len(sources), generator=generator)]

        # spread each source's turns evenly: their places are shares of the epoch
        places = torch.cat([(torch.arange(n) + 0.5) / n for n in self.turns])
        return sources[places.argsort(stable=True)]

    def _repeat(self, source: int, epoch: int) -> Iterator[Tensor]:
        """Yields the batches of a source, one pass after the other, without end."""
        rows, size, first = self.sources[source]
        for number in count():
            order = torch.arange(rows)
            if self.shuffle:
                generator = make_generator(self.seed, epoch, source, number)
                order = torch.randperm(rows, generator=generator)
            yield from (order + first).split(size)


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Divides a whole number in proportion to weights, by the method of largest remainders.

    Args:
        total: The number to divide, at least the number of weights.
        weights: One weight above 0 for each share.

    Returns:
        Whole numbers, each at least 1, that sum to ``total``.
    """
    shares = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(counts)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1

    # the largest shares give up what the smallest ones lack
    while 0 in counts:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(0)] += 1
    return counts
