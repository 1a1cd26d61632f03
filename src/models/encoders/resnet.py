"""Residual networks for images."""

from typing import Literal

from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders.convnet import Pool, check_image_shape
from src.models.encoders.encoder import Encoder

# groups of GroupNorm, as in ConvNet; on ImageNet 8 are within 0.3 % of 32 (Wu and He, Table 3), and
# narrow networks can have them
GROUPS = 8
Norm = Literal["group", "batch"]
# blocks of each stage by the depth of the network (He et al., Table 1)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def check_images(name: str, shape: InputShape, width: int, groups: bool = True) -> None:
    """Checks that the inputs are images, and that the groups of GroupNorm divide the channels.

    Raises:
        UserError: The inputs are no images, or the width is wrong.
    """
    check_image_shape(name, shape)
    if width < 1:
        raise UserError(f"{name}: width {width} must be at least 1")
    if groups and width % GROUPS and GROUPS % width:
        raise UserError(
            f"{name}: width {width} must be a multiple of {GROUPS}, the number of its GroupNorm "
            "groups, or 1, 2, 4"
        )


def make_convolution(
    channels_in: int, channels: int, kernel: int, stride: int = 1, norm: Norm = "group"
) -> nn.Sequential:
    """Makes a convolution with its normalisation; a stride of 2 halves the image."""
    conv = nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if norm == "batch":
        return nn.Sequential(conv, nn.BatchNorm2d(channels))
    return nn.Sequential(conv, nn.GroupNorm(min(GROUPS, channels), channels))


class Block(nn.Module):
    """A residual block: ReLU(shortcut(x) + body(x)).

    The shortcut is the identity, or a 1x1 convolution where the shape changes. The body is two 3x3
    convolutions, or as a bottleneck a 1x1, a 3x3 and a 1x1 to four times the channels. The first
    3x3 convolution has the stride, as in torchvision.
    """

    def __init__(
        self, channels_in: int, channels: int, stride: int, bottleneck: bool, norm: Norm
    ) -> None:
        super().__init__()
        out = channels * 4 if bottleneck else channels
        same = stride == 1 and channels_in == out
        self.shortcut = (
            nn.Identity() if same else make_convolution(channels_in, out, 1, stride, norm)
        )
        if bottleneck:
            layers = [
                make_convolution(channels_in, channels, 1, 1, norm),
                nn.ReLU(),
                make_convolution(channels, channels, 3, stride, norm),
                nn.ReLU(),
                make_convolution(channels, out, 1, 1, norm),
            ]
        else:
            layers = [
                make_convolution(channels_in, channels, 3, stride, norm),
                nn.ReLU(),
                make_convolution(channels, channels, 3, 1, norm),
            ]
        self.body = nn.Sequential(*layers)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        return self.relu(self.shortcut(x) + self.body(x))


class ResNet(Encoder):
    """A residual network for images: x <- ReLU(x + F(x)).

    (He et al., "Deep residual learning for image recognition", CVPR 2016.) It has five stages: the
    stem and four groups of blocks. Each group after the first halves the image and doubles the
    channels; the last one ends with the mean over the image. Depths 18 and 34 have basic blocks,
    depth 50 bottlenecks.

    Args:
        shape: The shape of one sample; its dense part must be (channels, height, width).
        depth: Number of layers as the paper counts them, with the classifier (here the heads).
        width: Channels of the stem, a multiple of 8 or 1, 2, 4; the features are 8 times as many
            (depth 50: 32 times).
        stem: cifar: a 3x3 convolution that keeps the size, for small images. imagenet: a 7x7 one
            that halves it, and max pooling, which halves it again.
        norm: group: GroupNorm (Wu and He, ECCV 2018). batch: BatchNorm, which sees only the rows of
            its own device, padding included, so that a run depends on the number of devices.
    """

    def __init__(
        self,
        shape: InputShape,
        depth: Literal[18, 34, 50] = 18,
        width: int = 64,
        stem: Literal["cifar", "imagenet"] = "cifar",
        norm: Norm = "group",
    ) -> None:
        super().__init__(shape)
        if depth not in BLOCKS:
            raise UserError(f"ResNet: depth {depth} must be 18, 34 or 50")
        if stem not in ("cifar", "imagenet"):
            raise UserError(f"ResNet: stem '{stem}' must be cifar or imagenet")
        if norm not in ("group", "batch"):
            raise UserError(f"ResNet: norm '{norm}' must be group or batch")
        check_images("ResNet", shape, width, groups=norm == "group")
        kernel, stride = (3, 1) if stem == "cifar" else (7, 2)
        stages = [
            nn.Sequential(make_convolution(shape.dense[0], width, kernel, stride, norm), nn.ReLU())
        ]
        if stem == "imagenet":
            stages[0].append(nn.MaxPool2d(3, stride=2, padding=1))
        bottleneck = depth == 50
        size = width
        for i, count in enumerate(BLOCKS[depth]):
            stages.append(nn.Sequential())
            for j in range(count):
                stages[-1].append(
                    Block(size, width * 2**i, 2 if i and not j else 1, bottleneck, norm)
                )
                size = width * 2**i * (4 if bottleneck else 1)
        stages[-1].append(Pool())
        self.stages = nn.Sequential(*stages)
        self.features = size
