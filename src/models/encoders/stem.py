"""The stem of encoders that read vectors: flattened images, table rows with embeddings."""

from collections.abc import Hashable, Mapping
from math import prod

import torch
from torch import Tensor, nn

from src.batch import InputShape
from src.models.encoders.columns import Axis, OfColumn, TableColumns


def embedding_size(vocabulary: int) -> int:
    """Returns min(50, 1.6 n^0.56): small for flags, bounded for long lists.

    (A rule of thumb: Howard and Gugger, "fastai: A layered API for deep learning", 2020.)
    """
    return min(50, round(1.6 * vocabulary**0.56))


def start_unseen_at_mean(weight: Tensor) -> None:
    """Sets the first vector of an embedding (V, D), for unseen categories, to the others' mean."""
    if len(weight) > 1:
        with torch.no_grad():
            weight[0] = weight[1:].mean(0)


class VectorStem(nn.Module):
    """Inputs as one vector per sample (B, features).

    Inputs are a tensor (B, *shape), or {'dense': (B, F), 'categorical': (B, C) positions}: each
    category becomes a learned vector. With 'gates' (B, C) among them, it is multiplied by its gate.
    """

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        embeddings = [nn.Embedding(n, embedding_size(n)) for n in shape.categories]
        for embedding in embeddings:
            # vectors of length 1 on average, whatever their size
            nn.init.normal_(embedding.weight, std=embedding.embedding_dim**-0.5)
            start_unseen_at_mean(embedding.weight)
        self.embeddings = nn.ModuleList(embeddings)
        self.features = prod(shape.dense) + sum(e.embedding_dim for e in embeddings)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Returns (B, features)."""
        if isinstance(inputs, Tensor):
            return inputs.flatten(1)
        categories = inputs["categorical"].unbind(1)
        columns = [e(c) for e, c in zip(self.embeddings, categories, strict=True)]
        if "gates" in inputs:
            gates = inputs["gates"].split(1, 1)
            columns = [column * gate for column, gate in zip(columns, gates, strict=True)]
        dense = inputs["dense"]
        if columns:
            # the embeddings of several stacked encoders give (K, B, ...)
            dense = dense.expand(*columns[0].shape[:-1], -1)
        return torch.cat([dense, *columns], dim=-1)


class LinearStem(nn.Sequential):
    """Inputs as one vector, then a linear layer: (B, width).

    Args:
        shape: The shape of one sample.
        width: Size of the output.
    """

    def __init__(self, shape: InputShape, width: int) -> None:
        stem = VectorStem(shape)
        super().__init__(stem, nn.Linear(stem.features, width))

    @staticmethod
    def name_inputs(
        columns: TableColumns, state: Mapping[str, Tensor]
    ) -> dict[str, tuple[Hashable, dict[int, Axis]]]:
        """Names the entries of a state after columns; see :class:`ReadsColumns`.

        The linear layer has no weight for a new column at first: outputs are as without it.
        """
        named: dict[str, tuple[Hashable, dict[int, Axis]]] = {}
        inputs: list[Hashable] = list(columns.dense)
        for k, (column, words) in enumerate(columns.categories.items()):
            entry = f"0.embeddings.{k}.weight"
            size = state[entry].shape[-1]
            places: tuple[Hashable, ...] = tuple((column, "vector", i) for i in range(size))
            named[entry] = (OfColumn("0.embeddings", column), {-2: words, -1: Axis(places)})
            inputs += places
        named["1.weight"] = ("1.weight", {-1: Axis(tuple(inputs), zero=True)})
        return named
