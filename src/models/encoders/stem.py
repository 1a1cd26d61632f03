"""The first stage of encoders that read vectors: images flattened, table rows put side by side with learned embeddings."""

from math import prod

import torch
from torch import Tensor, nn

from src.batch import InputShape


def embedding_size(vocabulary: int) -> int:
    """A common rule of thumb, min(50, 1.6 n^0.56): small for flags, bounded for long lists (fast.ai, Howard and Gugger 2020)."""
    return min(50, round(1.6 * vocabulary**0.56))


def start_between(weight: Tensor) -> None:
    """Lets the first vector of an embedding (V, D), of categories never seen, begin as the mean of the others, in place."""
    if len(weight) > 1:
        with torch.no_grad():
            weight[0] = weight[1:].mean(0)


class VectorStem(nn.Module):
    """A tensor (B, *shape), or {'dense': (B, F), 'categorical': (B, C) of positions}, as one vector (B, features)."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        embeddings = [nn.Embedding(n, embedding_size(n)) for n in shape.categories]
        for embedding in embeddings:
            nn.init.normal_(embedding.weight, std=embedding.embedding_dim**-0.5)
            start_between(embedding.weight)
        self.embeddings = nn.ModuleList(embeddings)
        self.features = prod(shape.dense) + sum(e.embedding_dim for e in embeddings)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Returns (B, features)."""
        if isinstance(inputs, Tensor):
            return inputs.flatten(1)
        columns = [
            e(c) for e, c in zip(self.embeddings, inputs["categorical"].unbind(1), strict=True)
        ]
        dense = inputs["dense"]
        if columns:  # of several networks at once they are (K, B, ...)
            dense = dense.expand(*columns[0].shape[:-1], -1)
        return torch.cat([dense, *columns], dim=-1)
