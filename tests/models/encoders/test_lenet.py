import pytest
import torch

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders import LeNet


def test_the_network_of_the_literature() -> None:
    encoder = LeNet(InputShape((1, 28, 28)))
    encoder.check(encoder.shape)
    # 10 x 25 + 10, 20 x 250 + 20, 320 x 50 + 50
    assert [sum(p.numel() for p in stage.parameters()) for stage in encoder.stages] == [
        260,
        5020,
        16050,
    ]
    images = torch.randn(3, 1, 28, 28)
    maps = encoder.stages[0](images)
    assert maps.shape == (3, 10, 12, 12)
    assert encoder.stages[1](maps).shape == (3, 20, 4, 4)
    assert encoder(images).shape == (3, 50)
    assert [(x.channels, x.image) for x in encoder.layouts()] == [
        (10, True),
        (20, True),
        (50, False),
    ]


@pytest.mark.parametrize("sides", [(16, 16), (33, 20)])
def test_other_sizes(sides: tuple[int, int]) -> None:
    encoder = LeNet(InputShape((3, *sides)), channels=(4, 6), features=9)
    assert encoder(torch.randn(2, 3, *sides)).shape == (2, 9)


@pytest.mark.parametrize(
    ("shape", "settings", "says"),
    [
        (InputShape((1, 15, 28)), {}, "16 x 16 pixels or more, but the data gives 15 x 28"),
        (InputShape((5,)), {}, "LeNet reads images"),
        (InputShape((1, 28, 28)), {"features": 0}, "features 0 must be positive"),
    ],
)
def test_mistakes(shape: InputShape, settings: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        LeNet(shape, **settings)  # type: ignore[arg-type]  # by name
