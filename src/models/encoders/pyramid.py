"""Feature pyramid: features of each pixel, from any encoder of images."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders.convnet import ConvNet, Pool
from src.models.encoders.encoder import Encoder, State
from src.models.encoders.resnet import check_images, convolution
from src.models.encoders.unet import resized


class Keep(nn.Module):
    """A stage of the backbone: x -> (f(x), *riders, x); the first one puts (B, 0, H, W), the size alone, aside for its input."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, state: State) -> State:
        """Returns what the backbone's stage makes of x, and what rides along."""
        if isinstance(state, Tensor):
            return self.body(state), state[:, :0]
        x, *riders = state
        return self.body(x), *riders, x


class TopDown(nn.Module):
    """(coarsest level, size, *finer levels, the finest first) -> (B, H, W, width).

    Args:
        channels: Those of each level, the finest first.
        width: Channels of the pyramid.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Conv2d(c, width, kernel_size=1, bias=False) for c in channels
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(convolution(width, width, 3), nn.ReLU()) for _ in channels
        )

    def forward(self, state: tuple[Tensor, ...]) -> Tensor:
        """Returns the features."""
        coarsest, size, *finer = state
        levels = [lateral(x) for lateral, x in zip(self.lateral, [*finer, coarsest], strict=True)]
        for k in reversed(range(len(levels) - 1)):
            levels[k] = levels[k] + F.interpolate(
                levels[k + 1], levels[k].shape[-2:], mode="nearest"
            )
        parts = [
            resized(smooth(x), levels[0]) for smooth, x in zip(self.smooth, levels, strict=True)
        ]
        return resized(sum(parts[1:], parts[0]), size).movedim(1, -1).contiguous()


class FeaturePyramid(Encoder):
    """Features of each pixel from all stages of an encoder of images, the coarse ones handed down to the fine ones.

    p_k = W_k x_k + up(p_k+1), and z = sum_k up(ReLU(GroupNorm(V_k * p_k))) at the size of the
    finest level, then of the image, with x_k what stage k of the backbone puts out, W_k 1x1 and V_k
    3x3 convolutions (Lin et al., "Feature pyramid networks", CVPR 2017; Kirillov et al., "Panoptic
    feature pyramid networks", CVPR 2019, for the sum). The mean over the image at the end of the
    backbone is left out; its stages are the first ones here, and the pyramid is the last.

    Args:
        shape: What one sample looks like; its dense part must be (channels, height, width).
        backbone: Makes an encoder whose stages put out images, and which ends with their mean:
            ConvNet, ResNet.
        width: Channels of the pyramid, and size of the features: a multiple of 8 or 1, 2, 4.
    """

    def __init__(
        self,
        shape: InputShape,
        backbone: Callable[[InputShape], Encoder] = ConvNet,
        width: int = 128,
    ) -> None:
        super().__init__(shape)
        check_images("FeaturePyramid", shape, width)
        encoder = backbone(shape)
        layouts, last = encoder.layouts(), encoder.stages[-1]
        images = all(layout.image for layout in layouts[:-1])
        if not (images and isinstance(last, nn.Sequential) and isinstance(last[-1], Pool)):
            raise UserError(
                f"FeaturePyramid: backbone {type(encoder).__name__} must put out images (B, C, H, W) at every stage "
                "and end with their mean (Pool), as ConvNet and ResNet do"
            )
        del last[-1]
        self.stages = nn.Sequential(
            *map(Keep, encoder.stages), TopDown([layout.channels for layout in layouts], width)
        )
        self.features = width
