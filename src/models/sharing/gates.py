"""What a gate reads of a sample, gates, and mixtures of what several networks put out."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from src.batch import InputShape
from src.models.encoders.encoder import Encoder, State
from src.models.encoders.stem import VectorStem, embedding_size
from src.models.sharing.sharing import EncoderFactory

if TYPE_CHECKING:
    from pandas import DataFrame

SIDE = 8  # pixels


class GateInput(nn.Module):
    """Inputs of any kind as one vector per sample (B, features).

    Vectors and table rows are put side by side as an encoder's stem does it, images are averaged to
    at most 8 x 8, and of a sequence it is the mean of small learned vectors of its tokens.

    Args:
        shape: What one sample looks like.
    """

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.grid: tuple[int, int] | None = None
        self.stem: nn.Embedding | VectorStem
        if shape.tokens:
            self.features = embedding_size(shape.tokens)
            self.stem = nn.Embedding(shape.tokens, self.features)
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
        if isinstance(self.stem, nn.Embedding):
            assert not isinstance(inputs, Tensor)
            return over_tokens(self.stem(inputs["tokens"]), inputs["tokens"])
        if self.grid is not None:
            assert isinstance(inputs, Tensor)
            inputs = F.adaptive_avg_pool2d(inputs, self.grid)
        return self.stem(inputs)


def over_tokens(x: Tensor, tokens: Tensor) -> Tensor:
    """The mean of (..., B, S, C) over the tokens (B, S) of each sequence, without what fills it up: how far depends on others."""
    real = (tokens > 0).to(x.dtype).unsqueeze(-1)
    return (x * real).sum(-2) / real.sum(-2).clamp(min=1)


def over_places(x: Tensor, tokens: Tensor | None) -> Tensor:
    """(K, B, ..., C) -> (K, B, C), the mean; of a sequence that over its tokens, however long the others of its batch are."""
    if x.ndim == 3:
        return x
    if tokens is not None and x.shape[2:-1] == tokens.shape[1:]:
        return over_tokens(x, tokens)
    return x.flatten(2, -2).mean(2)


def pooled(x: Tensor, image: bool, inputs: Tensor | dict[str, Tensor]) -> Tensor:
    """K states (K, B, ...) of a batch of inputs, as images or with channels last, as vectors: their mean over places (K, B, C)."""
    tokens = None if isinstance(inputs, Tensor) else inputs.get("tokens")
    return over_places(x.movedim(-3, -1) if image else x, tokens)


class Gates(nn.Module):
    """T linear gates of O outputs, W_t x + b_t; row t of each parameter is gate t's.

    Args:
        gates: T.
        outputs: O.
        features: Size of x; 0: there is none, and the outputs are b_t.
        scale: Standard deviation of an output at first, if the features have variance 1: near even
            gates.
    """

    def __init__(self, gates: int, outputs: int, features: int, scale: float = 0.1) -> None:
        super().__init__()
        weight = torch.randn(gates, outputs, features) * scale / max(features, 1) ** 0.5
        self.weight = nn.Parameter(weight) if features else None
        self.bias = nn.Parameter(torch.zeros(gates, outputs))

    def forward(self, x: Tensor | None) -> Tensor:
        """(B, features) for all, or each gate's own (T, B, features), -> (B, T, O); without x (T, O)."""
        if x is None or self.weight is None:
            return self.bias
        if x.ndim == 2:
            return F.linear(x, self.weight.flatten(0, 1), self.bias.flatten()).unflatten(
                -1, self.bias.shape
            )
        return torch.bmm(x, self.weight.mT).transpose(0, 1) + self.bias


def mix(weights: Tensor, state: State) -> State:
    """sum_e w_te x_e of all that E networks put out, what rides along included; masks are the same for all, and stay.

    Args:
        weights: (T, E) for all samples, or (B, T, E).
        state: Tensors (E, B, ...).

    Returns:
        Tensors (T, B, ...).
    """
    return tree_map(partial(_mixed, weights), state)


def _mixed(weights: Tensor, x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x[:1].expand(weights.shape[-2], *x.shape[1:])
    if weights.ndim == 2:
        return (weights @ x.flatten(1)).unflatten(1, x.shape[1:])
    return (
        torch.bmm(weights, x.flatten(2).transpose(0, 1)).transpose(0, 1).unflatten(2, x.shape[2:])
    )


def one_more(encoder: EncoderFactory) -> Encoder:
    """An encoder to look at: the generator of initial weights stays where it was."""
    with torch.random.fork_rng(devices=[]):
        return encoder()


def table(numbers: Tensor, rows: Sequence[str], columns: Sequence[str]) -> "DataFrame":
    """Numbers with names."""
    from pandas import DataFrame

    return DataFrame(numbers.tolist(), index=list(rows), columns=list(columns))
