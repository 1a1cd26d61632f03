"""Whose turn it is: one stream of global batches over the rows of several sources."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, count
from typing import Literal

import torch
from torch import Tensor

from src.data.stream import GlobalBatches
from src.rng import make_generator

Sampler = Literal["proportional", "temperature", "round_robin", "min_cycle", "max_cycle"]
TOGETHER = ("min_cycle", "max_cycle")  # a step holds a batch of every source


class SourceBatches(GlobalBatches):
    """Global batches over the rows of several sources that stand behind one another.

    The p-th pass over source i in an epoch has the order of (seed, epoch, i, p), so that a run
    resumes from (epoch, step) alone.

    Args:
        rows: Number of rows of each source.
        sizes: Size of each source's batches.
        sampler: Whose turn it is, as in :class:`~src.data.sources.Sources`.
        temperature: As in :class:`Sources`.
        shuffle: Draw new orders each epoch; otherwise rows come in order, and the sources' turns
            are spread evenly.
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
    ) -> None:
        super().__init__(sum(rows), max(sizes), shuffle, seed)
        self.sources = list(
            zip(rows, sizes, accumulate(rows, initial=0), strict=False)
        )  # rows, batch size, first row
        self.sampler = sampler
        batches = [-(-n // size) for n, size, _ in self.sources]
        if sampler == "proportional":
            self.turns = batches
        elif sampler == "temperature":
            self.turns = apportioned(
                sum(batches), [(n / max(rows)) ** (1 / temperature) for n in rows]
            )
        else:
            self.turns = [min(batches) if sampler == "min_cycle" else max(batches)] * len(rows)

    def __len__(self) -> int:
        return self.turns[0] if self.sampler in TOGETHER else sum(self.turns)

    def batches(self) -> Iterator[Tensor]:
        """Yields the global batches of this epoch: one of one source, or of each source side by side."""
        rest = [self._endless(source, self.epoch) for source in range(len(self.sources))]
        if self.sampler in TOGETHER:
            for _ in range(len(self)):
                yield torch.cat([next(batches) for batches in rest])
        else:
            for source in self._in_turn().tolist():
                yield next(rest[source])

    def _in_turn(self) -> Tensor:
        """The source of each step."""
        sources = torch.arange(len(self.turns)).repeat_interleave(torch.tensor(self.turns))
        if self.shuffle and self.sampler != "round_robin":
            return sources[
                torch.randperm(len(sources), generator=make_generator(self.seed, self.epoch))
            ]
        place = torch.cat(
            [(torch.arange(n) + 0.5) / n for n in self.turns]
        )  # of each turn, as a share of the epoch
        return sources[place.argsort(stable=True)]

    def _endless(self, source: int, epoch: int) -> Iterator[Tensor]:
        """The batches of a source, one pass after the other."""
        rows, size, first = self.sources[source]
        for number in count():
            key = (self.seed, epoch, source, number)
            order = (
                torch.randperm(rows, generator=make_generator(*key))
                if self.shuffle
                else torch.arange(rows)
            )
            yield from (order + first).split(size)


def apportioned(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to ``weights``, by largest remainder, that sum to ``total``; each is at least 1."""
    shares = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(counts)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    while 0 in counts:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(0)] += 1
    return counts
