"""LeNet, the network of the benchmarks on digits."""

from torch import nn

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders.convnet import check_image_shape
from src.models.encoders.encoder import Encoder

KERNEL = 5


class LeNet(Encoder):
    """Two 5x5 convolutions, each with max pooling and ReLU, and a linear layer.

    It is LeNet (LeCun et al., "Gradient-based learning applied to document recognition", 1998) in
    the form that the literature on MultiMNIST has since Sener and Koltun (NeurIPS 2018): for images
    of 28 x 28 pixels, convolutions of 10 and 20 channels, and 320 to 50 features. The heads that
    belong to it have one hidden layer of 50: ``depth: 1, width: 50`` of each task.

    Args:
        shape: The shape of one sample; its dense part must be (channels, height, width), and both
            sides 16 pixels or more.
        channels: Channels of the two convolutions.
        features: Size of the features.
    """

    def __init__(
        self, shape: InputShape, channels: tuple[int, int] = (10, 20), features: int = 50
    ) -> None:
        super().__init__(shape)
        check_image_shape("LeNet", shape)
        if min(*channels, features) < 1:
            raise UserError(f"LeNet: channels {channels} and features {features} must be positive")
        first, second = channels
        stages = [make_stage(shape.dense[0], first), make_stage(first, second)]

        # each stage takes 4 pixels off a side, and halves it
        sides = [((side - KERNEL + 1) // 2 - KERNEL + 1) // 2 for side in shape.dense[1:]]
        if min(sides) < 1:
            raise UserError(
                f"LeNet needs images of 16 x 16 pixels or more, but the data gives "
                f"{shape.dense[1]} x {shape.dense[2]}: use --model.encoder ConvNet"
            )
        size = second * sides[0] * sides[1]
        stages.append(nn.Sequential(nn.Flatten(), nn.Linear(size, features), nn.ReLU()))
        self.stages = nn.Sequential(*stages)
        self.features = features


def make_stage(channels_in: int, channels: int) -> nn.Sequential:
    """Makes a 5x5 convolution without padding, max pooling over 2x2 pixels, and ReLU."""
    return nn.Sequential(nn.Conv2d(channels_in, channels, KERNEL), nn.MaxPool2d(2), nn.ReLU())
