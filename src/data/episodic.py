"""The base of data that consist of episodes: many small tasks of a few rows each."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from src.batch import PADDING, Batch
from src.data.datamodule import MultiTaskDataModule
from src.data.rows import BatchDataset, Split
from src.data.stream import GlobalBatches
from src.errors import UserError
from src.tasks.labels import remove_rows

SIDES = {"train": 0, "val": 1, "test": 2}


class EpisodeBatches(GlobalBatches):
    """Yields this rank's numbers of training episodes: new ones in each epoch.

    Episodes are drawn without end, so that an epoch is a number of them, and the global batches of
    an epoch are a function of the epoch alone. Whole episodes are dealt to ranks.
    """

    def batches(self) -> Iterator[Tensor]:
        """Yields the global batches of this epoch; without shuffling those of the first one."""
        first = self.epoch * self.rows if self.shuffle else 0
        for start in range(0, self.rows, self.batch_size):
            size = min(self.batch_size, self.rows - start)
            yield torch.arange(first + start, first + start + size)


class EpisodeRows(BatchDataset):
    """A data set of episodes; asked for some episodes, it returns all of their rows.

    The rows of an episode stand together, support rows first. The labels of support rows are no
    targets, so that they count in no loss and no metric. ``extras`` has for each row 'episode', the
    number of its episode in the batch; 'support', whether it is a support row; and 'label', the
    label that a support row shows. The id of row i of episode e is e x (rows of an episode) + i.

    Args:
        episodes: Number of episodes, of an epoch where they are drawn without end.
        supports: Support rows of each.
        queries: Query rows of each.
    """

    def __init__(self, episodes: int, supports: int, queries: int) -> None:
        self.episodes = episodes
        self.supports = supports
        self.size = supports + queries

    def __len__(self) -> int:
        return self.episodes

    @abstractmethod
    def read(self, numbers: list[int]) -> Batch:
        """Returns the rows of some episodes with all labels of one task, any ids and no extras.

        Args:
            numbers: The numbers of the episodes, from 0, across epochs.
        """

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows of the episodes ``ids``; the labels of ``PADDING`` are missing."""
        batch = self.read(ids.clamp(min=0).tolist())
        rows = ids[:, None] * self.size + torch.arange(self.size)
        padding = (ids == PADDING)[:, None].expand_as(rows)
        batch.ids = rows.masked_fill(padding, PADDING).flatten()
        support = (torch.arange(self.size) < self.supports).repeat(len(ids))

        (task,) = batch.targets
        labels = remove_rows(batch.targets[task], padding.flatten())
        batch.targets[task] = remove_rows(labels, support)
        batch.extras = {
            "episode": torch.arange(len(ids)).repeat_interleave(self.size),
            "support": support,
            "label": remove_rows(labels, ~support),
        }
        return batch


class EpisodicData(MultiTaskDataModule):
    """Data that consist of episodes, for a model with ``model.meta``.

    An episode is a function of (seed, its number) alone: the same on any number of devices and
    after a resume. Validation and test have a fixed set of episodes each.

    Args:
        episodes_per_batch: Episodes per step over all devices together.
        episodes_per_epoch: Training episodes of an epoch; each epoch has new ones.
        val_episodes: Episodes that validate.
        test_episodes: Episodes that test.
        rows: Rows of a training episode.
        eval_batch_size: Rows per evaluation step over all devices together, in whole episodes.
        num_workers: Processes that prepare batches.
        seed: Seed of the training episodes.
    """

    def __init__(
        self,
        episodes_per_batch: int,
        episodes_per_epoch: int,
        val_episodes: int,
        test_episodes: int,
        rows: int,
        eval_batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        counts = {
            "episodes_per_batch": episodes_per_batch,
            "episodes_per_epoch": episodes_per_epoch,
            "val_episodes": val_episodes,
            "test_episodes": test_episodes,
        }
        for name, value in counts.items():
            if value < 1:
                raise UserError(f"data.{name} is {value}; it must be at least 1")
        super().__init__(episodes_per_batch * max(1, rows), eval_batch_size, num_workers, seed)
        self.episodes_per_batch = episodes_per_batch
        self.counts = {"train": episodes_per_epoch, "val": val_episodes, "test": test_episodes}

    @abstractmethod
    def split(self, name: Split) -> EpisodeRows:
        """Returns the episodes of a split; prediction takes the test's."""

    def training_batches(self, rows: BatchDataset, shuffle: bool) -> GlobalBatches:
        """Returns the sampler that says which episodes make up each training step."""
        return EpisodeBatches(len(rows), self.episodes_per_batch, shuffle, self.seed)

    def evaluation_batches(self, rows: BatchDataset) -> GlobalBatches:
        """Returns the sampler that says which episodes make up each evaluation step."""
        assert isinstance(rows, EpisodeRows)
        episodes = max(1, self.eval_batch_size // rows.size)
        return GlobalBatches(len(rows), episodes, shuffle=False)

    def describe(self, name: Split) -> str:
        """Describes the episodes of a split."""
        rows = self.split(name)
        queries = rows.size - rows.supports
        return (
            f"{len(rows)} episodes of the {name} split, {rows.supports} support and {queries} "
            "query rows each"
        )

    def row_info(self, name: Split) -> dict[str, list[Any]]:
        """Returns the names of rows as episode/row; the query rows are those with predictions."""
        rows = self.split(name)
        return {"id": [f"{e}/{i}" for e in range(len(rows)) for i in range(rows.size)]}


def check_sizes(**sizes: int) -> None:
    """Checks numbers of rows or classes of an episode.

    Raises:
        UserError: One of them is below 1.
    """
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"data.{name} is {value}; it must be at least 1")
