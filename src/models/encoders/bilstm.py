"""A bidirectional LSTM for sentences: words and their characters, for labels of words."""

from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.dropout import Dropout
from src.models.encoders.convnet import describe
from src.models.encoders.encoder import Encoder, State
from src.models.encoders.transformer import PIECE_SIZE, join_mask, split_mask

WINDOW = 5  # pieces that a filter sees: endings such as -tion, and the mark of the word's end


class PieceFilters(nn.Module):
    """The pieces of each token (characters, subwords) as one vector.

    It is the largest answer of each filter to ``WINDOW`` neighbouring pieces.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, PIECE_SIZE)
        # a convolution as a product, at real pieces alone: most places are behind a word's end
        self.filters = nn.Linear(WINDOW * PIECE_SIZE, width)

    def forward(self, parts: Tensor) -> Tensor:
        """(B, S, P) -> (B, S, width), zero where a token has no pieces."""
        real = parts > 0
        places = real.flatten().nonzero().squeeze(1)
        padded = F.pad(parts, (WINDOW // 2, WINDOW // 2))
        near = padded.unfold(-1, WINDOW, 1).flatten(0, -2)[places]
        x = self.embedding(near).masked_fill((near == 0)[..., None], 0)
        answers = self.filters(x.flatten(-2))

        # back to their places, where the largest of each token is taken
        every = answers.new_full((*answers.shape[:-2], parts.numel(), answers.shape[-1]), -inf)
        every = every.index_copy(-2, places, answers).unflatten(-2, parts.shape)
        return every.amax(-2).masked_fill(~real.any(-1)[..., None], 0)


class WordsAndPieces(nn.Module):
    """The embedding of each token, and beside it the vector of its pieces.

    {'tokens': (B, S), 'parts': (B, S, P)} -> (B, S, D), and the mask of the real tokens (B, S).
    """

    def __init__(self, shape: InputShape, word_size: int, piece_size: int, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.tokens, word_size)
        nn.init.normal_(self.words.weight, std=0.1)
        self.pieces = PieceFilters(shape.parts, piece_size) if shape.parts else None
        self.dropout = Dropout(dropout)
        self.features = word_size + (piece_size if shape.parts else 0)

    def forward(self, inputs: dict[str, Tensor]) -> State:
        """Returns x and the mask."""
        x = self.words(inputs["tokens"])
        if self.pieces is not None:
            x = torch.cat([x, self.pieces(inputs["parts"])], -1)
        return join_mask(self.dropout(x), inputs["tokens"] > 0)


class Layer(nn.Module):
    """Two LSTMs side by side: one reads a sentence from its first token, one from its last.

    The second one reads the real tokens in reverse order. Padding comes behind them in both
    directions, so that it changes nothing, to the bit.
    """

    def __init__(self, size: int, width: int, dropout: float) -> None:
        super().__init__()
        self.forwards = nn.LSTM(size, width // 2, batch_first=True)
        self.backwards = nn.LSTM(size, width // 2, batch_first=True)
        self.dropout = Dropout(dropout)

    def forward(self, state: State) -> State:
        """(B, S, size) -> (B, S, width)."""
        x, mask = split_mask(state)
        if mask is None:
            mask = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
        if not torch.is_autocast_enabled(x.device.type):
            return join_mask(self.dropout(self._read(x, mask)), mask)

        # a CPU has no LSTM that learns in 16 bits
        with torch.autocast(x.device.type, enabled=False):
            return join_mask(self.dropout(self._read(x.float(), mask)), mask)

    def _read(self, x: Tensor, mask: Tensor) -> Tensor:
        """Reads sentences (B, S, size) in both directions: (B, S, width)."""
        order = reverse_order(mask)[..., None]
        there, _ = self.forwards(x)
        back, _ = self.backwards(x.gather(1, order.expand_as(x)))
        return torch.cat([there, back.gather(1, order.expand_as(back))], -1)


def reverse_order(mask: Tensor) -> Tensor:
    """Returns the places that reverse the real positions (B, S) of each row; padding stays."""
    steps = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - steps, steps)


class BiLSTM(Encoder):
    """A bidirectional LSTM over words and characters, ``depth`` layers deep.

    (Ma and Hovy, "End-to-end sequence labeling via bi-directional LSTM-CNNs-CRF", ACL 2016.) A
    token is its word's embedding, beside a convolution over its pieces if the data gives them. The
    embedding is one stage, each layer another. Features are per token (B, S, D), zero at padding,
    and do not depend on how far a sentence is padded.

    Args:
        shape: The shape of one sample: tokens, or a sequence (steps, features) in which nothing is
            padded.
        width: Width of the layers, half of it for each direction, and size of the features.
        depth: Number of layers.
        word_size: Size of the words' embeddings.
        piece_size: Number of filters over pieces.
        dropout: Share of units dropped behind the embedding and each layer.
    """

    def __init__(
        self,
        shape: InputShape,
        width: int = 256,
        depth: int = 2,
        word_size: int = 128,
        piece_size: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(shape)
        if shape.categories or shape.nodes or not (shape.tokens or len(shape.dense) == 2):
            raise UserError(
                "BiLSTM reads tokens or sequences (steps, features), but the data gives "
                f"{describe(shape)}: use another --model.encoder"
            )
        if width < 2 or width % 2 or depth < 1 or word_size < 1 or piece_size < 1:
            raise UserError(
                f"BiLSTM: width {width} must be even and at least 2, depth {depth}, word_size "
                f"{word_size} and piece_size {piece_size} at least 1"
            )
        if not 0 <= dropout < 1:
            raise UserError(f"BiLSTM: dropout {dropout} is outside [0, 1)")
        first: nn.Module
        if shape.tokens:
            embedding = WordsAndPieces(shape, word_size, piece_size, dropout)
            size = embedding.features
            first = embedding
        else:
            size = width
            first = nn.Linear(shape.dense[1], width)
        layers = [Layer(size if k == 0 else width, width, dropout) for k in range(depth)]
        self.stages = nn.Sequential(first, *layers[:-1], nn.Sequential(layers[-1], Finish()))
        self.features = width


class Finish(nn.Module):
    """Drops the mask: a state -> features (B, S, D), zero at padding."""

    def forward(self, state: State) -> Tensor:
        """Returns x."""
        return split_mask(state)[0]
