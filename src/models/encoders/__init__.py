"""Encoders: networks that turn inputs into features, as sequences of stages."""

from src.models.encoders.bilstm import BiLSTM
from src.models.encoders.convnet import ConvNet
from src.models.encoders.encoder import Encoder
from src.models.encoders.fusion import Fusion
from src.models.encoders.lenet import LeNet
from src.models.encoders.message_passing import MessagePassing
from src.models.encoders.mlp import MLP
from src.models.encoders.perceptron import Perceptron
from src.models.encoders.pretrained import Pretrained
from src.models.encoders.pyramid import FeaturePyramid
from src.models.encoders.resnet import ResNet
from src.models.encoders.tabular_transformer import TabularTransformer
from src.models.encoders.transformer import Transformer
from src.models.encoders.unet import UNet

__all__ = [
    "MLP",
    "BiLSTM",
    "ConvNet",
    "Encoder",
    "FeaturePyramid",
    "Fusion",
    "LeNet",
    "MessagePassing",
    "Perceptron",
    "Pretrained",
    "ResNet",
    "TabularTransformer",
    "Transformer",
    "UNet",
]
