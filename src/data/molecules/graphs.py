"""Many graphs in flat tensors, padded to the longest of a batch when a batch needs them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.batch import PADDING, InputShape
from src.data.rows import Inputs, LazyValues

PARTS = ("nodes", "node_mask", "edges", "edge_features")


class Graph(NamedTuple):
    """One graph.

    Attributes:
        nodes: (N, F) features, or positions of categories.
        edges: (E, 2) numbers of nodes, the sender first; an edge in both directions stands twice.
        edge_features: (E, G) features, or positions of categories.
    """

    nodes: Tensor
    edges: Tensor
    edge_features: Tensor


@dataclass(frozen=True)
class PackedGraphs:
    """Many graphs, one after the other.

    Features are numbers, or positions of categories in few bytes, which become vectors of 0 and 1
    in a batch.

    Attributes:
        nodes: (nodes, F)
        edges: (edges, 2) numbers of nodes, counted from 0 in each graph.
        edge_features: (edges, G)
        node_counts: (graphs,)
        edge_counts: (graphs,)
        node_sizes: Number of categories of each node feature; none where they are numbers.
        edge_sizes: Number of categories of each edge feature; none where they are numbers.
    """

    nodes: Tensor
    edges: Tensor
    edge_features: Tensor
    node_counts: Tensor
    edge_counts: Tensor
    node_sizes: tuple[int, ...] = ()
    edge_sizes: tuple[int, ...] = ()

    @classmethod
    def pack(
        cls, graphs: Iterable[Graph], node_sizes: Sequence[int] = (), edge_sizes: Sequence[int] = ()
    ) -> PackedGraphs:
        """Packs graphs, at least one of them."""
        nodes, edges, features = zip(*graphs, strict=True)
        return cls(
            torch.cat(nodes),
            torch.cat(edges),
            torch.cat(features),
            torch.tensor([len(each) for each in nodes]),
            torch.tensor([len(each) for each in edges]),
            tuple(node_sizes),
            tuple(edge_sizes),
        )

    def __len__(self) -> int:
        return len(self.node_counts)

    @property
    def shape(self) -> InputShape:
        """The shape of one graph in a batch."""
        return InputShape(
            nodes=sum(self.node_sizes) or self.nodes.shape[1],
            edges=sum(self.edge_sizes) or self.edge_features.shape[1],
        )

    def append(self, other: PackedGraphs) -> PackedGraphs:
        """Returns these graphs and then others."""
        return PackedGraphs(
            torch.cat([self.nodes, other.nodes]),
            torch.cat([self.edges, other.edges]),
            torch.cat([self.edge_features, other.edge_features]),
            torch.cat([self.node_counts, other.node_counts]),
            torch.cat([self.edge_counts, other.edge_counts]),
            self.node_sizes,
            self.edge_sizes,
        )

    def select(self, part: str, rows: Tensor) -> Tensor:
        """Returns one of ``PARTS`` of some graphs (B,), padded to the longest of them."""
        if part in ("nodes", "node_mask"):
            places, mask = find_places(self.node_counts, rows)
            if part == "node_mask":
                return mask
            return expand_categories(take(self.nodes, places, mask), self.node_sizes, mask)
        places, mask = find_places(self.edge_counts, rows)
        if part == "edges":
            edges = take(self.edges, places, mask).long()
            return edges.masked_fill(~mask[..., None], PADDING)
        return expand_categories(take(self.edge_features, places, mask), self.edge_sizes, mask)

    def hash_graphs(self, part: str, rows: Tensor) -> np.ndarray:
        """Hashes what belongs to one of ``PARTS`` of each of some graphs: (B,) uint64."""
        flat = {"nodes": self.nodes, "edges": self.edges, "edge_features": self.edge_features}
        if part not in flat:
            return self.node_counts[rows].numpy().astype(np.uint64)
        counts = self.node_counts if part == "nodes" else self.edge_counts
        values = flat[part].numpy()
        ends = counts.cumsum(0).tolist()
        found = []
        for row in rows.tolist():
            content = values[ends[row] - int(counts[row]) : ends[row]].tobytes()
            found.append(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()))
        return np.array(found, dtype=np.uint64)

    def as_inputs(self) -> Inputs:
        """Returns all graphs as inputs of a data set, made when a batch needs them."""
        rows = torch.arange(len(self))
        return {part: GraphPart(self, rows, part) for part in PARTS}


class GraphPart(LazyValues):
    """The nodes, or another part, of some graphs.

    Args:
        graphs: The graphs.
        rows: (N,) numbers of the graphs.
        part: One of ``PARTS``.
    """

    def __init__(self, graphs: PackedGraphs, rows: Tensor, part: str) -> None:
        self.graphs = graphs
        self.rows = rows
        self.part = part

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor) -> GraphPart:
        return GraphPart(self.graphs, self.rows[rows], self.part)

    def append(self, other: LazyValues) -> GraphPart:
        assert isinstance(other, GraphPart)
        if self.graphs is other.graphs:
            return GraphPart(self.graphs, torch.cat([self.rows, other.rows]), self.part)
        rows = torch.cat([self.rows, other.rows + len(self.graphs)])
        return GraphPart(self.graphs.append(other.graphs), rows, self.part)

    def load(self) -> Tensor:
        """Makes the part of all of these graphs, padded to the longest of them."""
        return self.graphs.select(self.part, self.rows)

    def hash_rows(self) -> np.ndarray:
        return self.graphs.hash_graphs(self.part, self.rows)


def find_places(counts: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where the values of some graphs lie in a flat tensor.

    Args:
        counts: (graphs,) Number of values of each graph.
        rows: (B,) Numbers of graphs.

    Returns:
        (B, longest) places, and which of them are real (B, longest).
    """
    ends = counts.cumsum(0)[rows]
    lengths = counts[rows]
    steps = torch.arange(int(lengths.max()) if len(rows) else 0)
    mask = steps < lengths[:, None]
    return ((ends - lengths)[:, None] + steps) * mask, mask


def take(flat: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """Returns values of a flat tensor (values, F) at places (B, L): (B, L, F), 0 at padding."""
    # graphs without any edge have no place 0
    if not len(flat):
        return flat.new_zeros(*places.shape, *flat.shape[1:])
    return flat[places] * mask[..., None]


def expand_categories(values: Tensor, sizes: Sequence[int], mask: Tensor) -> Tensor:
    """Turns positions of categories into vectors of 0 and 1; numbers stay.

    Args:
        values: (B, L, F)
        sizes: Number of categories of each feature; none for numbers.
        mask: The real places (B, L).

    Returns:
        (B, L, sum of the sizes) or (B, L, F) float32, 0 at padding.
    """
    if not sizes:
        return values.float()
    starts = torch.tensor([0, *sizes[:-1]]).cumsum(0)
    hot = torch.zeros(*values.shape[:-1], sum(sizes))
    hot.scatter_(-1, values.long() + starts, 1.0)
    return hot * mask[..., None]


def pack_geometric(dataset: Iterable[Any]) -> PackedGraphs:
    """Packs the graphs of a PyTorch Geometric data set, with their node and edge features.

    Args:
        dataset: ``Data`` objects with ``x`` and ``edge_index``, and perhaps ``edge_attr``.
    """
    graphs = []
    for data in dataset:
        edges = data.edge_index.T.contiguous()
        features = data.edge_attr
        if features is None:
            features = torch.zeros(len(edges), 0)
        graphs.append(Graph(data.x, edges, features.reshape(len(edges), -1)))
    return PackedGraphs.pack(graphs)
