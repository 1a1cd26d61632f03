"""A residual multilayer perceptron: vectors, images as vectors, table rows."""

from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.dropout import Dropout
from src.models.encoders.convnet import describe, suggest_encoder
from src.models.encoders.encoder import Encoder
from src.models.encoders.stem import LinearStem


class Block(nn.Module):
    """A pre-norm residual block: x + W2 dropout(GELU(W1 LayerNorm(x))).

    (Gorishniy et al., "Revisiting deep learning models for tabular data", NeurIPS 2021.)
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.body = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        return x + self.body(x)


class MLP(Encoder):
    """A residual multilayer perceptron: a linear stem, ``depth`` residual blocks, LayerNorm, GELU.

    The stem is one stage, each block another. It has LayerNorm, not BatchNorm: a sample's features
    must not depend on the other samples of its device.

    Args:
        shape: The shape of one sample.
        width: Width of all hidden layers, and size of the features.
        depth: Number of residual blocks.
        dropout: Share of hidden units dropped in each block.
    """

    def __init__(
        self, shape: InputShape, width: int = 256, depth: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__(shape)
        if width < 1 or depth < 0:
            raise UserError(f"MLP: width {width} and depth {depth} must be at least 1 and 0")
        if not 0 <= dropout < 1:
            raise UserError(f"MLP: dropout {dropout} is outside [0, 1)")
        if shape.tokens or shape.nodes or shape.members:
            raise UserError(
                f"MLP reads vectors, but the data gives {describe(shape)}: use --model.encoder "
                f"{suggest_encoder(shape)}"
            )

        self.stages = nn.Sequential(
            LinearStem(shape, width),
            *(Block(width, dropout) for _ in range(depth)),
        )
        # residual blocks leave their sum unscaled: the last stage normalises it for the heads
        self.stages[-1] = nn.Sequential(self.stages[-1], nn.LayerNorm(width), nn.GELU())
        self.features = width
