"""Episodes that are drawn from rows: some classes each, or one group each."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from src.batch import Batch
from src.data.concat import concatenate, name_inputs
from src.data.episodic import EpisodeRows
from src.data.rows import BatchDataset, Rows
from src.rng import make_generator

CHUNK = 1024  # rows whose labels are read at a time


class PooledRows(BatchDataset):
    """The rows of several splits, one after the other, in any order in a batch.

    Args:
        splits: The splits of one data module.
    """

    def __init__(self, splits: Sequence[BatchDataset]) -> None:
        self.splits = splits
        self.ends = torch.tensor([len(split) for split in splits]).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def targets(self, task: str) -> Tensor:
        """Returns the targets of a task in all rows (N, ...)."""
        found = []
        for split in self.splits:
            if isinstance(split, Rows):
                found.append(split.targets[task])
                continue
            chunks = torch.arange(len(split)).split(CHUNK)
            found += [split[ids].targets[task] for ids in chunks]
        return torch.cat(found)

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the inputs of rows; there is no padding, and no label."""
        owner = torch.bucketize(ids, self.ends, right=True)
        order = owner.argsort(stable=True)
        pieces = []
        for place, split in enumerate(self.splits):
            own = ids[order][owner[order] == place]
            if len(own):
                begin = int(self.ends[place]) - len(split)
                pieces.append(name_inputs(split[own - begin]))
        sizes = [len(next(iter(piece.values()))) for piece in pieces]

        # back into the order that was asked for
        back = order.argsort()
        inputs = {}
        for key, example in pieces[0].items():
            whole = concatenate([piece[key] for piece in pieces], sizes, example, 0)
            inputs[key] = whole[back]
        return Batch(inputs.get("", inputs), {}, ids)


class DrawnEpisodes(EpisodeRows):
    """Episodes of some classes each, or of one group each, drawn from rows.

    Args:
        rows: All rows.
        members: {class or group: its rows}.
        task: The task's name.
        labels: The labels of all rows, where an episode is a group; None where it has classes,
            which are numbered anew in each episode.
        key: What the episodes are a function of, besides their number.
        episodes: Number of episodes.
        ways: Classes of an episode; 1 where it is a group.
        shots: Support rows of each class, or of the group.
        queries: Query rows of each.
    """

    def __init__(
        self,
        rows: PooledRows,
        members: Mapping[int, Tensor],
        task: str,
        labels: Tensor | None,
        key: tuple[int, ...],
        episodes: int,
        ways: int,
        shots: int,
        queries: int,
    ) -> None:
        super().__init__(episodes, ways * shots, ways * queries)
        self.rows = rows
        self.members = [members[number] for number in sorted(members)]
        self.task = task
        self.labels = labels
        self.key = key
        self.ways = ways
        self.shots = shots
        self.queries = queries

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Returns the rows of an episode, support rows first, and its classes by number.

        Args:
            number: The number of the episode, across epochs.

        Returns:
            (S + Q,) row numbers, and the positions (S + Q,) of their classes in the episode.
        """
        generator = make_generator(*self.key, number)
        chosen = torch.randperm(len(self.members), generator=generator)[: self.ways]
        supports = []
        queries = []
        for place in chosen.tolist():
            rows = self.members[place]
            order = torch.randperm(len(rows), generator=generator)
            supports.append(rows[order[: self.shots]])
            queries.append(rows[order[self.shots : self.shots + self.queries]])
        classes = torch.arange(self.ways)
        local = [classes.repeat_interleave(self.shots), classes.repeat_interleave(self.queries)]
        return torch.cat([*supports, *queries]), torch.cat(local)

    def read(self, numbers: list[int]) -> Batch:
        drawn = [self.draw(number) for number in numbers]
        ids = torch.cat([rows for rows, _ in drawn])
        batch = self.rows[ids]
        local = torch.cat([classes for _, classes in drawn])
        batch.targets = {self.task: local if self.labels is None else self.labels[ids]}
        return batch


class RenamedTask(EpisodeRows):
    """Episodes whose one task has another name.

    Args:
        episodes: The episodes.
        task: The name.
    """

    def __init__(self, episodes: EpisodeRows, task: str) -> None:
        super().__init__(len(episodes), episodes.supports, episodes.size - episodes.supports)
        self.own = episodes
        self.task = task

    def read(self, numbers: list[int]) -> Batch:
        batch = self.own.read(numbers)
        batch.targets = dict(zip([self.task], batch.targets.values(), strict=True))
        return batch
