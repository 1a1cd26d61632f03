"""Gates, the inputs that they read, and mixtures of the outputs of several networks."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.batch import InputShape, inputs_of
from src.models.encoders.encoder import Encoder, State, map_state
from src.models.encoders.stem import VectorStem, embedding_size
from src.models.padding import find_real
from src.models.sharing.sharing import EncoderFactory

if TYPE_CHECKING:
    from pandas import DataFrame

SIDE = 8  # pixels


class GateInput(nn.Module):
    """Inputs of any kind as one vector per sample (B, features).

    Vectors and table rows are put side by side as an encoder's stem does it. Images are averaged to
    at most 8 x 8. A sequence becomes the mean of small learned vectors of its tokens, a graph
    that of the features of its nodes. Several inputs stand side by side.

    Args:
        shape: The shape of one sample.
    """

    features: int

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.grid: tuple[int, int] | None = None
        self.stem: nn.Embedding | VectorStem | nn.ModuleList | nn.Identity
        self.members = [name for name, _ in shape.members]
        if shape.members:
            stems = [GateInput(own) for _, own in shape.members]
            # no dict: an input may have the name of one of a dict's methods
            self.stem = nn.ModuleList(stems)
            self.features = sum(stem.features for stem in stems)
            return
        if shape.nodes:
            self.stem = nn.Identity()
            self.features = shape.nodes
            return
        if shape.tokens:
            self.features = embedding_size(shape.tokens)
            self.stem = nn.Embedding(shape.tokens, self.features)
            # vectors of length 1 on average, whatever their size
            nn.init.normal_(self.stem.weight, std=self.features**-0.5)
            return

        if len(shape.dense) == 3:
            channels, height, width = shape.dense
            self.grid = (min(height, SIDE), min(width, SIDE))
            shape = replace(shape, dense=(channels, *self.grid))
        self.stem = VectorStem(shape)
        self.features = self.stem.features

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """Returns (B, features)."""
        if isinstance(self.stem, nn.ModuleList):
            assert not isinstance(inputs, Tensor)
            own = [inputs_of(name, inputs) for name in self.members]
            return torch.cat([stem(x) for stem, x in zip(self.stem, own, strict=True)], -1)
        if isinstance(self.stem, nn.Embedding):
            assert not isinstance(inputs, Tensor)
            return average_real(self.stem(inputs["tokens"]), inputs["tokens"] > 0)
        if isinstance(self.stem, nn.Identity):
            assert not isinstance(inputs, Tensor)
            return average_real(inputs["nodes"], inputs["node_mask"])
        if self.grid is not None:
            assert isinstance(inputs, Tensor)
            inputs = F.adaptive_avg_pool2d(inputs, self.grid)
        return self.stem(inputs)


def average_real(x: Tensor, mask: Tensor) -> Tensor:
    """Averages (..., B, S, C) over the real places (B, S) of each sample.

    Padding does not count: its length depends on the other samples of the batch.
    """
    real = mask.to(x.dtype).unsqueeze(-1)
    return (x * real).sum(-2) / real.sum(-2).clamp(min=1)


def average_places(x: Tensor, real: Tensor | None) -> Tensor:
    """Averages (K, B, ..., C) over all places, those of a sequence or a graph over its real ones.

    Args:
        x: The features.
        real: The real places (B, S), as :func:`find_real` finds them.

    Returns:
        (K, B, C).
    """
    if x.ndim == 3:
        return x
    if real is not None and x.shape[2:-1] == real.shape[1:]:
        return average_real(x, real)
    return x.flatten(2, -2).mean(2)


def pool_states(x: Tensor, image: bool, inputs: Tensor | dict[str, Tensor]) -> Tensor:
    """Averages K states of a batch over places.

    Args:
        x: (K, B, C, H, W) for images, else (K, B, ..., C).
        image: Whether it is images.
        inputs: The inputs of the batch, which tell the real tokens of a sequence and the real
            nodes of a graph.

    Returns:
        (K, B, C).
    """
    return average_places(x.movedim(-3, -1) if image else x, find_real(inputs))


class Gates(nn.Module):
    """T linear gates of O outputs, W_t x + b_t; row t of each parameter belongs to gate t.

    Args:
        gates: T.
        outputs: O.
        features: Size of x; 0: there is no x, and the outputs are b_t.
        scale: Standard deviation of an output at first, for features of variance 1; a small one
            makes gates start nearly even.
    """

    def __init__(self, gates: int, outputs: int, features: int, scale: float = 0.1) -> None:
        super().__init__()
        weight = torch.randn(gates, outputs, features) * scale / max(features, 1) ** 0.5
        self.weight = nn.Parameter(weight) if features else None
        self.bias = nn.Parameter(torch.zeros(gates, outputs))

    def forward(self, x: Tensor | None) -> Tensor:
        """(B, features) for all, or (T, B, features) with a part for each gate, -> (B, T, O).

        Without x the outputs are (T, O).
        """
        if x is None or self.weight is None:
            return self.bias
        # all gates read the same: one wide product
        if x.ndim == 2:
            y = F.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
            return y.unflatten(-1, self.bias.shape)
        return torch.bmm(x, self.weight.mT).transpose(0, 1) + self.bias


def mix(weights: Tensor, state: State) -> State:
    """Mixes the outputs of E networks: sum_e w_te x_e for each tensor of the state.

    Masks, which are the same for all networks, stay.

    Args:
        weights: (T, E) for all samples, or (B, T, E).
        state: Tensors (E, B, ...).

    Returns:
        Tensors (T, B, ...).
    """
    return map_state(partial(mix_tensors, weights), state)


def mix_tensors(weights: Tensor, x: Tensor) -> Tensor:
    """Mixes one tensor (E, B, ...) of a state, see :func:`mix`."""
    # a mask: the first network's serves every task
    if not x.is_floating_point():
        return x[:1].expand(weights.shape[-2], *x.shape[1:])
    if weights.ndim == 2:
        return (weights @ x.flatten(1)).unflatten(1, x.shape[1:])
    # (B, T, E) @ (B, E, rest): one product per sample
    z = torch.bmm(weights, x.flatten(2).transpose(0, 1))
    return z.transpose(0, 1).unflatten(2, x.shape[2:])


def make_example(encoder: EncoderFactory) -> Encoder:
    """Makes an encoder to look at; the generator of initial weights stays where it was."""
    with torch.random.fork_rng(devices=[]):
        return encoder()


def make_table(numbers: Tensor, rows: Sequence[str], columns: Sequence[str]) -> "DataFrame":
    """Makes a table of numbers (R, C) with named rows and columns."""
    from pandas import DataFrame

    return DataFrame(numbers.tolist(), index=list(rows), columns=list(columns))


def describe_load(gates_TE: Tensor) -> str:
    """Says how evenly tasks use experts: the mean gate of each, and how much these differ."""
    load_E = gates_TE.mean(0)
    shares = " ".join(f"{share:.2f}" for share in load_E.tolist())
    # 0 when all experts are used evenly
    variation = float(load_E.std(correction=0) / load_E.mean())
    return f"load {shares}, coefficient of variation {variation:.2f}"
