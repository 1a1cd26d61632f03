"""A pre-norm transformer for sequences: tokens, tokens made of parts, vectors."""

from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.dropout import Dropout
from src.models.encoders.convnet import describe, suggest_encoder
from src.models.encoders.encoder import Encoder, State

PIECE_SIZE = 32  # size of the embeddings of characters or subwords


def split_mask(state: State) -> tuple[Tensor, Tensor | None]:
    """Returns a state's x (..., S, D) and the mask of its real positions (..., S); None: all."""
    return (state, None) if isinstance(state, Tensor) else (state[0], state[1])


def join_mask(x: Tensor, mask: Tensor | None) -> State:
    """Returns a state: x with zeros at padding, and the mask if there is one."""
    if mask is None:
        return x
    # each of several stacked encoders has its own x, and so its own mask
    mask = mask.expand(x.shape[:-1])
    return x.masked_fill(~mask[..., None], 0), mask


def attention_mask(mask: Tensor) -> Tensor:
    """Returns the positions that are attended to: the real ones.

    In a row without any it is all positions, since a softmax needs one.
    """
    return mask | ~mask.any(-1, keepdim=True)


def pool_sequence(x: Tensor, mask: Tensor | None, pool: Literal["none", "mean", "first"]) -> Tensor:
    """Pools a sequence (..., S, D) to one vector (..., D), or not at all.

    Args:
        x: The sequence.
        mask: The real positions (..., S); None: all.
        pool: first: the first position; mean: the mean over the real positions; none: all positions
            (..., S, D), with zeros at padding.
    """
    if pool == "first":
        return x[..., 0, :]
    if mask is None:
        return x.mean(-2) if pool == "mean" else x
    x = x.masked_fill(~mask[..., None], 0)
    return x.sum(-2) / mask.sum(-1, keepdim=True).clamp(min=1) if pool == "mean" else x


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x)).

    The MLP has GELU and a hidden layer four times as wide. Dropout acts on what is added and within
    the MLP, not on the attention, which runs as one fused product.

    Args:
        width: D.
        heads: Number of attention heads.
        dropout: Share of units dropped.
        rows: Number of positions to compute, from the first; None for all.
    """

    def __init__(self, width: int, heads: int, dropout: float, rows: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.size = width // heads
        self.rows = rows
        self.norm: nn.Module = nn.LayerNorm(width)
        # those of each head side by side, so that devices can have whole heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Sequential(nn.Linear(width, width), Dropout(dropout))
        hidden = nn.Linear(width, 4 * width), nn.GELU(), Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), *hidden, nn.Linear(4 * width, width), Dropout(dropout)
        )

    def forward(self, state: State) -> State:
        """(..., S, D) -> (..., S or rows, D)."""
        x, mask = split_mask(state)
        projected = self.queries_keys_values(self.norm(x))
        q, k, v = projected.unflatten(-1, (-1, 3, self.size)).unbind(-2)
        attended = self._attend(q[..., : self.rows, :, :], k, v, mask)
        x = x[..., : self.rows, :] + self.out(attended)
        return join_mask(x + self.mlp(x), mask)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of q (..., R, heads, size) to k and v (..., S, heads, size), (..., R, D)."""

        def split(x: Tensor) -> Tensor:
            # (..., S, heads, size) -> (batch, heads, S, size)
            return x.flatten(0, -4).transpose(1, 2)

        if mask is not None:
            mask = attention_mask(mask).expand(k.shape[:-2]).flatten(0, -2)[:, None, None]
        z = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
        return z.transpose(1, 2).reshape(q.shape).flatten(-2)


class Finish(nn.Module):
    """LayerNorm and pooling: a state -> features."""

    def __init__(self, width: int, pool: Literal["none", "mean", "first"]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pool = pool

    def forward(self, state: State) -> Tensor:
        """Returns (..., S, D) or (..., D)."""
        x, mask = split_mask(state)
        return pool_sequence(self.norm(x), mask, self.pool)


class Pieces(nn.Module):
    """The pieces of each token (characters, subwords) as one vector.

    It is the largest answer of each filter to three neighbouring pieces (Ma and Hovy, "End-to-end
    sequence labeling via bi-directional LSTM-CNNs-CRF", ACL 2016).
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, PIECE_SIZE)
        # a convolution as a product, which can be stacked
        self.filters = nn.Linear(3 * PIECE_SIZE, width)

    def forward(self, parts: Tensor) -> Tensor:
        """(..., S, C) -> (..., S, width), zero where a token has no pieces."""
        real = (parts > 0)[..., None]
        x = self.embedding(parts).masked_fill(~real, 0)
        before = F.pad(x, (0, 0, 1, 0))[..., :-1, :]
        behind = F.pad(x, (0, 0, 0, 1))[..., 1:, :]
        answers = self.filters(torch.cat([before, x, behind], -1)).masked_fill(~real, -inf)
        return answers.amax(-2).masked_fill(~real.any(-2), 0)


class Tokens(nn.Module):
    """Embeddings of tokens, plus the vector of their pieces, and the mask of the real tokens.

    {'tokens': (B, S), 'parts': (B, S, C)} -> (B, S, D), (B, S).
    """

    def __init__(self, shape: InputShape, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.tokens, width)
        nn.init.normal_(self.words.weight, std=width**-0.5)
        self.parts = Pieces(shape.parts, width) if shape.parts else None

    def forward(self, inputs: dict[str, Tensor]) -> State:
        """Returns x and the mask."""
        x = self.words(inputs["tokens"])
        # to the size of the positions that are added (Vaswani et al.)
        x = x * x.shape[-1] ** 0.5
        if self.parts is not None:
            x = x + self.parts(inputs["parts"])
        return x, inputs["tokens"] > 0


class Positions(nn.Module):
    """Adds sines and cosines of each position, then applies dropout.

    Their wavelengths go from 2 pi to 20000 pi (Vaswani et al., NeurIPS 2017).
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, state: State) -> State:
        """(..., S, D) -> (..., S, D)."""
        x, mask = split_mask(state)
        length, width = x.shape[-2:]
        rates = 10_000 ** (-torch.arange(0, width, 2, device=x.device, dtype=torch.float32) / width)
        angles = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * rates
        waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[:, :width]
        return join_mask(self.dropout(x + waves.to(x.dtype)), mask)


class Transformer(Encoder):
    """A transformer for sequences: embedding, ``depth`` blocks of attention and an MLP, LayerNorm.

    (Vaswani et al., "Attention is all you need", NeurIPS 2017.) Each block normalises its input,
    not its output, and so needs no warm-up (Xiong et al., "On layer normalization in the
    transformer architecture", ICML 2020). Positions are sines, so that there is no longest
    sequence. A token is its word's embedding plus, if the data gives its pieces, a convolution over
    them. The embedding is one stage, each block another.

    Args:
        shape: The shape of one sample: tokens, or a sequence (steps, features) in which nothing
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
            other = "TabularTransformer" if shape.categories else suggest_encoder(shape)
            raise UserError(
                "Transformer reads tokens or sequences (steps, features), but the data gives "
                f"{describe(shape)}: use --model.encoder {other}"
            )
        check_sizes("Transformer", width, depth, heads, dropout)
        if pool not in ("none", "mean"):
            raise UserError(f"Transformer: pool {pool} is neither none nor mean")
        first = Tokens(shape, width) if shape.tokens else nn.Linear(shape.dense[1], width)
        self.stages = nn.Sequential(
            nn.Sequential(first, Positions(dropout)),
            *(Block(width, heads, dropout) for _ in range(depth)),
        )
        self.stages[-1] = nn.Sequential(self.stages[-1], Finish(width, pool))
        self.features = width


def check_sizes(name: str, width: int, depth: int, heads: int, dropout: float) -> None:
    """Checks the sizes of a transformer.

    Raises:
        UserError: One of them is out of range, or the heads do not divide the width.
    """
    if width < 1 or depth < 1 or heads < 1:
        raise UserError(
            f"{name}: width {width}, depth {depth} and heads {heads} must be at least 1"
        )
    if width % heads:
        raise UserError(f"{name}: width {width} is not a multiple of heads {heads}")
    if not 0 <= dropout < 1:
        raise UserError(f"{name}: dropout {dropout} is outside [0, 1)")
