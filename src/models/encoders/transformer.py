"""A pre-norm transformer for sequences: tokens, tokens made of parts, vectors."""

from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.dropout import Dropout
from src.models.encoders.convnet import describe
from src.models.encoders.encoder import Encoder, State

PART_SIZE = 32  # of the embeddings of characters or subwords


def with_mask(state: State) -> tuple[Tensor, Tensor | None]:
    """A state's x (..., S, D), and which of its S positions are real (..., S); None: all."""
    return (state, None) if isinstance(state, Tensor) else (state[0], state[1])


def masked(x: Tensor, mask: Tensor | None) -> State:
    """What a stage puts out: x with zeros at the positions that only fill up, and the mask, if there is one."""
    if mask is None:
        return x
    mask = mask.expand(x.shape[:-1])  # each of several encoders that run as one has its own
    return x.masked_fill(~mask[..., None], 0), mask


def attended(mask: Tensor) -> Tensor:
    """Which positions are attended to: the real ones, and in a row without any all of them, as a softmax needs one."""
    return mask | ~mask.any(-1, keepdim=True)


def pooled(x: Tensor, mask: Tensor | None, pool: Literal["none", "mean", "first"]) -> Tensor:
    """One vector per sequence (..., D), the first or the mean of the real ones; or none: x (..., S, D), zero where it fills up."""
    if pool == "first":
        return x[..., 0, :]
    if mask is None:
        return x.mean(-2) if pool == "mean" else x
    x = x.masked_fill(~mask[..., None], 0)
    return x.sum(-2) / mask.sum(-1, keepdim=True).clamp(min=1) if pool == "mean" else x


class Block(nn.Module):
    """x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x)), with GELU and a hidden layer four times as wide.

    Dropout acts on what is added and within the MLP, not on the attention, which runs as one fused
    product.

    Args:
        width: D.
        heads: Number of attention heads.
        dropout: Share of units dropped.
        rows: Number of positions, from the first, that are wanted of it; None for all.
    """

    def __init__(self, width: int, heads: int, dropout: float, rows: int | None = None) -> None:
        super().__init__()
        self.heads, self.size, self.rows = heads, width // heads, rows
        self.norm: nn.Module = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(
            width, 3 * width
        )  # of each head side by side, so that devices can have whole heads
        self.out = nn.Sequential(nn.Linear(width, width), Dropout(dropout))
        hidden = nn.Linear(width, 4 * width), nn.GELU(), Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), *hidden, nn.Linear(4 * width, width), Dropout(dropout)
        )

    def forward(self, state: State) -> State:
        """(..., S, D) -> (..., S or rows, D)."""
        x, mask = with_mask(state)
        q, k, v = (
            self.queries_keys_values(self.norm(x)).unflatten(-1, (-1, 3, self.size)).unbind(-2)
        )
        x = x[..., : self.rows, :] + self.out(
            self._attention(q[..., : self.rows, :, :], k, v, mask)
        )
        return masked(x + self.mlp(x), mask)

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        def split(x: Tensor) -> Tensor:
            return x.flatten(0, -4).transpose(1, 2)

        if mask is not None:
            mask = attended(mask).expand(k.shape[:-2]).flatten(0, -2)[:, None, None]
        z = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
        return z.transpose(1, 2).reshape(q.shape).flatten(-2)


class Finish(nn.Module):
    """LayerNorm and pooling: a state -> features."""

    def __init__(self, width: int, pool: Literal["none", "mean", "first"]) -> None:
        super().__init__()
        self.norm, self.pool = nn.LayerNorm(width), pool

    def forward(self, state: State) -> Tensor:
        """Returns (..., S, D) or (..., D)."""
        x, mask = with_mask(state)
        return pooled(self.norm(x), mask, self.pool)


class Parts(nn.Module):
    """What each token is made of as one vector: the largest answer of each filter to three neighbours (Ma and Hovy, ACL 2016)."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, PART_SIZE)
        self.filters = nn.Linear(
            3 * PART_SIZE, width
        )  # a convolution as a product: copies of it can run as one

    def forward(self, parts: Tensor) -> Tensor:
        """(..., S, C) -> (..., S, width), zero where a token has no parts."""
        real = (parts > 0)[..., None]
        x = self.embedding(parts).masked_fill(~real, 0)
        before, behind = F.pad(x, (0, 0, 1, 0))[..., :-1, :], F.pad(x, (0, 0, 0, 1))[..., 1:, :]
        answers = self.filters(torch.cat([before, x, behind], -1)).masked_fill(~real, -inf)
        return answers.amax(-2).masked_fill(~real.any(-2), 0)


class Tokens(nn.Module):
    """{'tokens': (B, S), 'parts': (B, S, C)} -> the words' embeddings plus their parts (B, S, D), and which are real (B, S)."""

    def __init__(self, shape: InputShape, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.tokens, width)
        nn.init.normal_(self.words.weight, std=width**-0.5)
        self.parts = Parts(shape.parts, width) if shape.parts else None

    def forward(self, inputs: dict[str, Tensor]) -> State:
        """Returns x and the mask."""
        x = self.words(inputs["tokens"])
        x = x * x.shape[-1] ** 0.5  # to the size of what is added (Vaswani et al.)
        return x if self.parts is None else x + self.parts(inputs["parts"]), inputs["tokens"] > 0


class Positions(nn.Module):
    """Adds sines and cosines of each position, at wavelengths from 2 pi to 20000 pi (Vaswani et al.); then dropout."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, state: State) -> State:
        """(..., S, D) -> (..., S, D)."""
        x, mask = with_mask(state)
        length, width = x.shape[-2:]
        rates = 10_000 ** (-torch.arange(0, width, 2, device=x.device, dtype=torch.float32) / width)
        angles = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * rates
        waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[:, :width]
        return masked(self.dropout(x + waves.to(x.dtype)), mask)


class Transformer(Encoder):
    """Embedding, ``depth`` blocks of attention and an MLP, LayerNorm (Vaswani et al., "Attention is all you need", NeurIPS 2017).

    Each block normalises what it reads, not what it puts out: it needs no warm-up (Xiong et al.,
    "On layer normalization in the transformer architecture", ICML 2020). Positions are sines, so
    that there is no longest sequence. A token is its word's embedding plus, if the data gives its
    parts, a convolution over them. One stage for the embedding and one per block.

    Args:
        shape: What one sample looks like: tokens, or a sequence (steps, features) in which nothing
            is padded.
        width: Width of all layers, and size of the features; a multiple of ``heads``.
        depth: Number of blocks.
        heads: Number of attention heads.
        dropout: Share of units dropped behind the embedding, in each MLP and of what each block
            adds.
        pool: none: features per token (B, S, D), for sequence labelling; mean: the mean over the
            real tokens (B, D).
    """

    def __init__(
        self,
        shape: InputShape,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        pool: Literal["none", "mean"] = "none",
    ) -> None:
        super().__init__(shape)
        if shape.categories or not (shape.tokens or len(shape.dense) == 2):
            other = (
                "TabularTransformer"
                if shape.categories
                else "ConvNet"
                if len(shape.dense) == 3
                else "MLP"
            )
            raise UserError(
                f"Transformer reads tokens or sequences (steps, features), but the data gives {describe(shape)}: "
                f"use --model.encoder {other}"
            )
        check("Transformer", width, depth, heads, dropout)
        if pool not in ("none", "mean"):
            raise UserError(f"Transformer: pool {pool} is neither none nor mean")
        first = Tokens(shape, width) if shape.tokens else nn.Linear(shape.dense[1], width)
        self.stages = nn.Sequential(
            nn.Sequential(first, Positions(dropout)),
            *(Block(width, heads, dropout) for _ in range(depth)),
        )
        self.stages[-1] = nn.Sequential(self.stages[-1], Finish(width, pool))
        self.features = width


def check(name: str, width: int, depth: int, heads: int, dropout: float) -> None:
    """Raises ValueError for sizes that cannot be."""
    if width < 1 or depth < 1 or heads < 1:
        raise UserError(
            f"{name}: width {width}, depth {depth} and heads {heads} must be at least 1"
        )
    if width % heads:
        raise UserError(f"{name}: width {width} is not a multiple of heads {heads}")
    if not 0 <= dropout < 1:
        raise UserError(f"{name}: dropout {dropout} is outside [0, 1)")
