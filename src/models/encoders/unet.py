"""U-Net: features of each pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders.convnet import make_stage
from src.models.encoders.encoder import Encoder, State
from src.models.encoders.resnet import check_images


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    """Resizes images to the height and width of others, linearly between centres of pixels."""
    # the common case, and the one that must not blur
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class Down(nn.Module):
    """One level down: (x, *skips) -> (f(x at half the size), *skips, x).

    Its input rides along until its size is reached again. It is put aside here and not where it was
    made, so that an architecture that changes x between stages changes the skip too.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        # a single row or column stays one
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.body = make_stage(channels_in, channels, stride=1)

    def forward(self, state: State) -> State:
        """Returns the smaller image and the skips."""
        x, *skips = (state,) if isinstance(state, Tensor) else state
        return self.body(self.pool(x)), *skips, x


class Up(nn.Module):
    """One level up: (x, ..., skip) -> (f(skip, x at the skip's size), ...).

    Args:
        channels_in: Channels of x.
        channels: Channels of the skip and of the result.
        keep: Whether x rides along, second in the tuple.
    """

    def __init__(self, channels_in: int, channels: int, keep: bool) -> None:
        super().__init__()
        # channels are cut before resizing, which is cheaper than after it
        self.narrow = nn.Conv2d(channels_in, channels, kernel_size=1, bias=False)
        self.body = make_stage(2 * channels, channels, stride=1)
        self.keep = keep

    def forward(self, state: tuple[Tensor, ...]) -> State:
        """Returns the larger image, and what still rides along."""
        x, *others, skip = state
        y = self.body(torch.cat([skip, resize_like(self.narrow(x), skip)], dim=1))
        return (y, x, *others) if self.keep else (y, *others)


class Pixels(nn.Module):
    """All levels at the size of the first, side by side: (x, coarser ...) -> (B, H, W, D)."""

    def forward(self, state: tuple[Tensor, ...]) -> Tensor:
        """Returns the features."""
        return (
            torch.cat([resize_like(x, state[0]) for x in state], dim=1).movedim(1, -1).contiguous()
        )


class UNet(Encoder):
    """U-Net: features of each pixel, by a way down to small images and up again, with skips.

    Level i has width 2^i channels at 1 / 2^i of the size. On the way down e_i = f(max pooling of
    e_i-1), on the way up d_i = f(e_i, up(d_i+1)) (Ronneberger et al., "U-Net: Convolutional
    networks for biomedical image segmentation", MICCAI 2015). The convolutions keep the size and
    have GroupNorm, and up is a 1x1 convolution and bilinear resizing to the size of e_i, so that
    any height and width will do. ``depth`` + 1 stages go down, ``depth`` go up; the skips e_i ride
    along between them.

    Args:
        shape: The shape of one sample; its dense part must be (channels, height, width).
        width: Channels at full size, a multiple of 8 or 1, 2, 4.
        depth: How often the image is halved.
        multi_scale: The features of a pixel are those of all depth + 1 levels of the way up,
            resized to full size and side by side (hypercolumns, Hariharan et al., CVPR 2015): width
            (2^(depth + 1) - 1) numbers instead of width.
    """

    def __init__(
        self, shape: InputShape, width: int = 32, depth: int = 3, multi_scale: bool = False
    ) -> None:
        super().__init__(shape)
        check_images("UNet", shape, width)
        if depth < 1:
            raise UserError(f"UNet: depth {depth} must be at least 1")

        # the way down, then the way up; the last stage gives features with channels last
        sizes = [width * 2**i for i in range(depth + 1)]
        down = [Down(sizes[i], sizes[i + 1]) for i in range(depth)]
        up: list[nn.Module] = [
            Up(sizes[i + 1], sizes[i], multi_scale) for i in reversed(range(depth))
        ]
        up[-1] = nn.Sequential(up[-1], Pixels())
        self.stages = nn.Sequential(make_stage(shape.dense[0], width, stride=1), *down, *up)
        self.features = sum(sizes) if multi_scale else width
