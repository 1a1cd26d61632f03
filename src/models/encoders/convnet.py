"""A small convolutional network for images."""

from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders.encoder import Encoder


def make_stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    """Makes two 3x3 convolutions with GroupNorm and ReLU; a stride of 2 halves the image."""
    layers: list[nn.Module] = []
    for i, s in enumerate((stride, 1)):
        # GroupNorm has a shift, so that the convolution needs no bias
        conv = nn.Conv2d(
            channels if i else channels_in, channels, kernel_size=3, stride=s, padding=1, bias=False
        )
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, nn.GroupNorm(min(8, channels), channels), nn.ReLU()]
    return nn.Sequential(*layers)


class Pool(nn.Module):
    """Mean over the image: (B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the mean over the last two dimensions."""
        return x.mean((-2, -1))


class ConvNet(Encoder):
    """A small convolutional network: ``depth`` stages of two 3x3 convolutions.

    Each stage after the first halves the image and doubles the channels; the last one ends with the
    mean over the image. It has GroupNorm (Wu and He, "Group normalization", ECCV 2018), not
    BatchNorm: the result must not depend on how a batch is spread over devices.

    Args:
        shape: The shape of one sample; its dense part must be (channels, height, width).
        width: Channels of the first stage: 1, 2, 4 or a multiple of 8.
        depth: Number of stages.
    """

    def __init__(self, shape: InputShape, width: int = 32, depth: int = 3) -> None:
        super().__init__(shape)
        check_image_shape("ConvNet", shape)
        if width < 1 or depth < 1:
            raise UserError(f"ConvNet: width {width} and depth {depth} must be at least 1")
        if width % 8 and width not in (1, 2, 4):
            raise UserError(
                f"ConvNet: width {width} is neither 1, 2, 4 nor a multiple of 8, the number of its "
                "GroupNorm groups"
            )

        # half the height and width at twice the channels: each stage costs about the same
        sizes = [shape.dense[0], *(width * 2**i for i in range(depth))]
        stages = [make_stage(sizes[i], sizes[i + 1], stride=2 if i else 1) for i in range(depth)]
        stages[-1].append(Pool())
        self.stages = nn.Sequential(*stages)
        self.features = sizes[-1]


def check_image_shape(name: str, shape: InputShape) -> None:
    """Checks that the inputs are images.

    Raises:
        UserError: They are not; the message names an encoder that reads them.
    """
    if len(shape.dense) != 3 or shape.categories or shape.tokens:
        raise UserError(
            f"{name} reads images (channels, height, width), but the data gives {describe(shape)}: "
            f"use --model.encoder {suggest_encoder(shape)}"
        )


def describe(shape: InputShape) -> str:
    """Describes an input shape in words."""
    if shape.members:
        return f"several inputs ({', '.join(name for name, _ in shape.members)})"
    if shape.tokens:
        return "sequences of tokens"
    if shape.nodes:
        return "graphs"
    words = f"inputs of shape {tuple(shape.dense)}"
    return f"{words} and {len(shape.categories)} categorical columns" if shape.categories else words


def suggest_encoder(shape: InputShape) -> str:
    """Returns the name of an encoder that reads inputs of this shape."""
    if shape.members:
        return "Fusion"
    if shape.nodes:
        return "MessagePassing"
    if shape.tokens or len(shape.dense) == 2:
        return "Transformer"
    return "ConvNet" if len(shape.dense) == 3 else "MLP"
