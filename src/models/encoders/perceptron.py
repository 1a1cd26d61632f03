"""A plain multilayer perceptron."""

from torch import nn

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders.convnet import describe, suggest_encoder
from src.models.encoders.encoder import Encoder
from src.models.encoders.stem import LinearStem


class Perceptron(Encoder):
    """A plain multilayer perceptron: linear layers of one width with ReLU, nothing else.

    It is the network of many small benchmarks, such as the sinusoids of Finn et al. (ICML 2017),
    where normalisation would change the problem. Each layer is a stage.

    Args:
        shape: The shape of one sample.
        width: Width of all layers, and size of the features.
        depth: Number of layers.
    """

    def __init__(self, shape: InputShape, width: int = 40, depth: int = 2) -> None:
        super().__init__(shape)
        if width < 1 or depth < 1:
            raise UserError(f"Perceptron: width {width} and depth {depth} must be at least 1")
        if shape.tokens or shape.nodes or shape.members:
            raise UserError(
                f"Perceptron reads vectors, but the data gives {describe(shape)}: use "
                f"--model.encoder {suggest_encoder(shape)}"
            )
        first = nn.Sequential(LinearStem(shape, width), nn.ReLU())
        others = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth - 1)]
        self.stages = nn.Sequential(first, *others)
        self.features = width
