"""What is shared: encoders as sequences of stages."""

from src.models.encoders.convnet import ConvNet
from src.models.encoders.encoder import Encoder
from src.models.encoders.mlp import MLP

__all__ = ["MLP", "ConvNet", "Encoder"]
