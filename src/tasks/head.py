"""A task's head: an MLP that ends in one linear layer.

Heads of equal shape run as one matrix product, see ``models/heads.py``.
"""

from itertools import pairwise

from torch import Tensor, nn


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

    def output_axes(self) -> dict[str, tuple[int, ...]]:
        """Returns {entry of the state: its dimensions along which each output has a place}."""
        last = len(self) - 1
        return {f"{last}.weight": (0,), f"{last}.bias": (0,)}


class PooledHead(Head):
    """A head that reads the mean over the places of a sample: (B, ..., features) -> (B, outputs).

    Places are tokens, pixels or nodes. Encoders give zeros at padding of sequences and graphs, and
    a place whose features are all zero does not count.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Returns the outputs; features (B, D) that are one vector a sample stay as they are."""
        if features.ndim > 3:
            # every pixel of an image is real, however dark
            features = features.flatten(1, -2).mean(1)
        elif features.ndim == 3:
            real = features.detach().any(-1, keepdim=True)
            # gradients of padding would count in the balancing of tasks, the more the longer it is
            features = features.masked_fill(~real, 0).sum(1) / real.sum(1).clamp(min=1)
        return super().forward(features)
