"""Feature pyramid network: features of each pixel, from any encoder of images."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders.convnet import ConvNet, Pool
from src.models.encoders.encoder import Encoder, State
from src.models.encoders.resnet import check_images, make_convolution
from src.models.encoders.unet import resize_like


class Keep(nn.Module):
    """A stage of the backbone that keeps its input: (x, *others) -> (f(x), *others, x).

    The first stage keeps (B, 0, H, W), only the size of its input.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, state: State) -> State:
        """Returns the output of the backbone's stage, and the tensors that ride along."""
        if isinstance(state, Tensor):
            return self.body(state), state[:, :0]
        x, *others = state
        return self.body(x), *others, x


class TopDown(nn.Module):
    """(coarsest level, size, *finer levels, the finest first) -> (B, H, W, width).

    Args:
        channels: Channels of each level, the finest first.
        width: Channels of the pyramid.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Conv2d(c, width, kernel_size=1, bias=False) for c in channels
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(make_convolution(width, width, 3), nn.ReLU()) for _ in channels
        )

    def forward(self, state: tuple[Tensor, ...]) -> Tensor:
        """Returns the features."""
        coarsest, size, *finer = state

        # from the coarsest level down: each adds the level above to its own
        levels = [lateral(x) for lateral, x in zip(self.lateral, [*finer, coarsest], strict=True)]
        for k in reversed(range(len(levels) - 1)):
            levels[k] = levels[k] + F.interpolate(
                levels[k + 1], levels[k].shape[-2:], mode="nearest"
            )
        smooth = [layer(x) for layer, x in zip(self.smooth, levels, strict=True)]
        z = smooth[0]
        for x in smooth[1:]:
            z = z + resize_like(x, levels[0])
        return resize_like(z, size).movedim(1, -1).contiguous()


class FeaturePyramid(Encoder):
    """A feature pyramid network: features of each pixel from all stages of an encoder of images.

    With x_k the output of stage k of the backbone, p_k = W_k x_k + up(p_k+1) carries coarse levels
    down to fine ones, and z = sum_k up(ReLU(GroupNorm(V_k * p_k))) at the size of the finest level,
    then of the image; W_k are 1x1 and V_k 3x3 convolutions (Lin et al., "Feature pyramid networks
    for object detection", CVPR 2017; for the sum: Kirillov et al., "Panoptic feature pyramid
    networks", CVPR 2019). The mean over the image at the end of the backbone is left out; the
    stages of the backbone come first, and the pyramid is the last stage.

    Args:
        shape: The shape of one sample; its dense part must be (channels, height, width).
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
        layouts = encoder.layouts()
        last = encoder.stages[-1]
        images = all(layout.image for layout in layouts[:-1])
        if not (images and isinstance(last, nn.Sequential) and isinstance(last[-1], Pool)):
            raise UserError(
                f"FeaturePyramid: backbone {type(encoder).__name__} must put out images "
                "(B, C, H, W) at every stage and end with their mean (Pool), as ConvNet and ResNet "
                "do"
            )

        # the pyramid reads images, so the mean at the end of the backbone goes
        del last[-1]
        self.stages = nn.Sequential(
            *map(Keep, encoder.stages), TopDown([layout.channels for layout in layouts], width)
        )
        self.features = width
