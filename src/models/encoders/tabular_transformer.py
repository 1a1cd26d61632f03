"""A transformer for table rows: each column is a token."""

from collections.abc import Hashable, Mapping

import torch
from rtdl_revisiting_models import CategoricalEmbeddings, LinearEmbeddings
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders.columns import Axis, OfColumn, TableColumns
from src.models.encoders.convnet import describe, suggest_encoder
from src.models.encoders.encoder import Encoder
from src.models.encoders.stem import start_unseen_at_mean
from src.models.encoders.transformer import Block, Finish, check_sizes

DENSE = ("weight", "bias")  # the parameters of embeddings of numbers


class Tokenizer(nn.Module):
    """A row as a [CLS] token and one token per column.

    A number x_j becomes x_j w_j + b_j, a category e_j(x_j) + b_j, and with a gate g_j among the
    inputs ('gates', of categories) g_j e_j(x_j) + b_j. All weights are uniform in
    +-width^-0.5 at first, as in the authors' package, which the two kinds of columns come from.
    """

    def __init__(self, columns: int, categories: tuple[int, ...], width: int) -> None:
        super().__init__()
        # one vector for all rows, which attention fills with what a row holds
        self.cls = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))
        self.columns = nn.ModuleDict()
        if columns:
            self.columns["dense"] = LinearEmbeddings(columns, width)
        if categories:
            self.columns["categorical"] = embeddings = CategoricalEmbeddings(
                list(categories), width
            )
            for embedding in embeddings.embeddings:
                start_unseen_at_mean(embedding.weight)

    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Tensor:
        """(B, F), or {'dense': (B, F), 'categorical': (B, C)}, -> (B, 1 + F + C, width)."""
        table = {"dense": inputs} if isinstance(inputs, Tensor) else inputs
        tokens = [embeddings(table[name]) for name, embeddings in self.columns.items()]
        if "gates" in table:
            # the gate is of the category, not of the bias that marks the column
            bias = self.columns["categorical"].bias
            tokens[-1] = table["gates"][..., None] * (tokens[-1] - bias) + bias
        return torch.cat([self.cls.expand(tokens[0].shape[0], 1, -1), *tokens], 1)

    @staticmethod
    def name_inputs(
        columns: TableColumns, state: Mapping[str, Tensor]
    ) -> dict[str, tuple[Hashable, dict[int, Axis]]]:
        """Names the entries of a state after columns; see :class:`ReadsColumns`."""
        dense = Axis(columns.dense)
        named: dict[str, tuple[Hashable, dict[int, Axis]]] = {}
        for name in DENSE:
            named[f"columns.dense.{name}"] = (f"dense.{name}", {-2: dense})
        categories = Axis(tuple(columns.categories))
        named["columns.categorical.bias"] = ("categorical.bias", {-2: categories})
        for k, (column, words) in enumerate(columns.categories.items()):
            entry = f"columns.categorical.embeddings.{k}.weight"
            named[entry] = (OfColumn("categorical", column), {-2: words})
        return {entry: value for entry, value in named.items() if entry in state}


class TabularTransformer(Encoder):
    """FT-Transformer: a table row's features are its [CLS] token, which attends to all columns.

    (Gorishniy et al., "Revisiting deep learning models for tabular data", NeurIPS 2021.) Each
    column is a token, without positions. It has the blocks of the Transformer encoder, with GELU
    where the paper has ReGLU. As in the paper the first block has no LayerNorm in front of its
    attention, and the last one computes the [CLS] token alone. The tokens are one stage, each block
    another.

    Args:
        shape: The shape of one sample: table columns.
        width: Size of each token, and of the features; a multiple of ``heads``.
        depth: Number of blocks.
        heads: Number of attention heads.
        dropout: Share of units dropped in each MLP and of what each block adds.
    """

    def __init__(
        self,
        shape: InputShape,
        width: int = 64,
        depth: int = 3,
        heads: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(shape)
        columns = sum(shape.dense)
        if shape.tokens or len(shape.dense) > 1 or not (columns or shape.categories):
            raise UserError(
                f"TabularTransformer reads table columns, but the data gives {describe(shape)}: "
                f"use --model.encoder {suggest_encoder(shape)}"
            )
        check_sizes("TabularTransformer", width, depth, heads, dropout)

        # only [CLS] is read at the end, so the last block computes that position alone
        blocks = [
            Block(width, heads, dropout, rows=1 if k == depth - 1 else None) for k in range(depth)
        ]
        # as in the paper: without a norm in front of the first attention training is easier
        blocks[0].norm = nn.Identity()
        self.stages = nn.Sequential(Tokenizer(columns, shape.categories, width), *blocks)
        self.stages[-1] = nn.Sequential(self.stages[-1], Finish(width, "first"))
        self.features = width
