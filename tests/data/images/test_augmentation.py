import pytest
import torch
from torch import Tensor

from src.data.images.augmentation import Augmentation
from src.errors import UserError

IDS = torch.arange(400)


def make_images(rows: int = 400) -> Tensor:
    return torch.rand(rows, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def test_nothing_changes_by_default() -> None:
    images = make_images()
    assert torch.equal(Augmentation()(images, IDS, 0, 0), images)


@pytest.mark.parametrize("settings", [{"flip": True}, {"shift": 2}, {"brightness": 0.3}])
def test_a_change_is_a_function_of_seed_epoch_and_row(settings: dict[str, float]) -> None:
    change = Augmentation(**settings)  # type: ignore[arg-type]  # by name
    images = make_images()
    whole = change(images, IDS, 3, 5)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    # in any order, and in batches of any size
    for rows in order.split(60):
        assert torch.equal(change(images[rows], IDS[rows], 3, 5), whole[rows])
    assert not torch.equal(change(images, IDS, 3, 6), whole)
    assert not torch.equal(change(images, IDS, 4, 5), whole)


def test_half_of_the_images_are_mirrored() -> None:
    images = make_images()
    changed = Augmentation(flip=True)(images, IDS, 0, 0)
    same = (changed == images).flatten(1).all(1)
    mirrored = (changed == images.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    # four standard deviations of 400 tosses of a coin
    assert abs(int(mirrored.sum()) - 200) < 40


def test_images_move_by_each_number_of_pixels() -> None:
    rows = torch.arange(9.0)[:, None].expand(9, 7)
    columns = torch.arange(7.0).expand(9, 7)
    images = torch.stack([rows, columns]).expand(400, -1, -1, -1)
    changed = Augmentation(shift=2)(images, IDS, 0, 0)
    # the pixel in the middle tells where it came from
    steps = changed[:, :, 4, 3] - torch.tensor([4.0, 3.0])
    found, counts = steps.unique(dim=0, return_counts=True)
    assert found.tolist() == [[float(y), float(x)] for y in range(-2, 3) for x in range(-2, 3)]
    assert counts.min() >= 4

    # the border is repeated
    for image, (down, right) in zip(changed, steps, strict=True):
        assert torch.equal(image[0], (rows + down).clamp(0, 8))
        assert torch.equal(image[1], (columns + right).clamp(0, 6))


def test_brightness_and_contrast() -> None:
    images = make_images().double()
    changed = Augmentation(brightness=0.3, contrast=0.2)(images, IDS, 0, 0)
    added = changed.mean((1, 2, 3)) - images.mean((1, 2, 3))
    factor = changed.std((1, 2, 3)) / images.std((1, 2, 3))
    for values, middle, most in ((added, 0.0, 0.3), (factor, 1.0, 0.2)):
        distance = (values - middle) / most
        # uniform in [-1, 1]: mean 0 and variance 1/3
        assert distance.abs().max() <= 1 + 1e-9
        assert abs(float(distance.mean())) < 4 / 3**0.5 / 20
        assert float(distance.var()) == pytest.approx(1 / 3, rel=0.2)
    # the two have nothing to do with each other
    assert abs(float(torch.corrcoef(torch.stack([added, factor]))[0, 1])) < 0.2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shift": -1}, "data.augment.shift is -1; it must be at least 0"),
        ({"brightness": -0.1}, "data.augment.brightness is -0.1"),
        ({"contrast": 1.5}, r"data.augment.contrast is 1.5; it lies in \[0, 1\]"),
    ],
)
def test_mistakes(settings: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Augmentation(**settings)  # type: ignore[arg-type]  # by name
