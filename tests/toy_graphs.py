"""PyTorch Geometric's made graphs as a data module, with labels of graphs and of nodes."""

import warnings
from typing import Any

import torch

from src.batch import InputShape
from src.data.datamodule import MultiTaskDataModule, Split
from src.data.molecules.graphs import pack_geometric
from src.data.rows import Rows, take_rows
from src.tasks import Classification, Regression, Task


def make_fake(**settings: Any) -> list[Any]:
    """Makes graphs, the same ones whenever it is called."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch_geometric.datasets import FakeDataset
        from torch_geometric.seed import seed_everything
    with torch.random.fork_rng(devices=[]):
        seed_everything(0)
        return list(FakeDataset(**settings))


class FakeGraphs(MultiTaskDataModule):
    """80 graphs of 4 to 12 nodes, with a class that follows from their nodes, and a number.

    Args:
        pooled: Whether the heads read the mean over the nodes, of an encoder that does not pool.
        batch_size: Graphs per step over all devices together.
        eval_batch_size: Graphs per evaluation step.
        num_workers: Processes that prepare batches.
        seed: Seed of the order of training batches.
    """

    def __init__(
        self,
        pooled: bool = False,
        batch_size: int = 16,
        eval_batch_size: int = 24,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.pooled = pooled
        graphs = make_fake(num_graphs=80, avg_num_nodes=8, num_classes=3, edge_dim=2)
        self.graphs = pack_geometric(graphs)
        self.labels = torch.cat([data.y for data in graphs])
        self.labels[::7] = -100
        self.size = torch.tensor([data.num_nodes / 4 - 2 for data in graphs])
        self.size[::3] = torch.nan

    @property
    def tasks(self) -> dict[str, Task]:
        return {
            "class": Classification(classes=(0, 1, 2), pooled=self.pooled),
            "size": Regression(mean=(0.0,), std=(1.0,), pooled=self.pooled),
        }

    @property
    def input_shape(self) -> InputShape:
        return self.graphs.shape

    def split(self, name: Split) -> Rows:
        rows = {"train": torch.arange(51), "val": torch.arange(51, 66)}.get(name)
        rows = torch.arange(66, 80) if rows is None else rows
        targets = {"class": self.labels[rows], "size": self.size[rows]}
        return Rows(take_rows(self.graphs.as_inputs(), rows), targets)
