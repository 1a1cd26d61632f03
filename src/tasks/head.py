"""A task's head: an MLP that ends in one linear layer.

Heads of equal shape run as one matrix product, see ``models/heads.py``.
"""

from itertools import pairwise

from torch import nn


class Head(nn.Sequential):
    """``depth`` hidden layers with GELU, then a linear layer: (..., features) -> (..., outputs)."""

    def __init__(self, features: int, outputs: int, depth: int = 0, width: int = 64) -> None:
        sizes = [features, *[width] * depth]
        layers: list[nn.Module] = []
        for size, following in pairwise(sizes):
            layers += [nn.Linear(size, following), nn.GELU()]
        super().__init__(*layers, nn.Linear(sizes[-1], outputs))

    @property
    def linears(self) -> list[nn.Linear]:
        """The linear layers, input side first."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]
