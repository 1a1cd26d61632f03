import torch

from src.data import Dense
from src.data.pixels.augmentation import DenseAugmentation, EpochBatches
from src.tasks import DenseRegression, Regression, Segmentation
from tests.data.pixels.dense_files import write_folder

TASKS = {"mask": Segmentation(classes=("a", "b")), "depth": DenseRegression(), "n": Regression()}


def sample(height=6, width=6):
    """An image whose maps are copies of it, so that they must move alike."""
    image = torch.arange(float(height * width)).view(1, height, width)
    return image, {"mask": image[0].long(), "depth": image[0], "n": torch.tensor(3.0)}


def changed(augmentation, key, size=(6, 6)):
    image, targets = augmentation.apply(*sample(*size), TASKS, key)
    assert torch.equal(targets["mask"].float(), image[0])
    assert torch.equal(targets["depth"], image[0])
    assert targets["n"] == 3
    return image[0]


def test_maps_move_with_their_image():
    whole = sample()[0][0]
    eight = [whole.rot90(k) for k in range(4)]
    eight += [image.flip(1).rot90(k) for k, image in enumerate([whole] * 4)]
    seen = set()
    for row in range(100):
        image = changed(DenseAugmentation(turn=True), (0, row))
        found = [k for k, wanted in enumerate(eight) if torch.equal(image, wanted)]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 8


def test_oblong_images_keep_their_sides():
    for row in range(20):
        assert changed(DenseAugmentation(turn=True), (0, row), (4, 6)).shape == (4, 6)


def test_crops_are_sections_everywhere():
    corners = set()
    for row in range(300):
        image = changed(DenseAugmentation(crop=(4, 5)), (0, row))
        assert image.shape == (4, 5)
        top, left = divmod(int(image[0, 0]), 6)
        assert torch.equal(image, sample()[0][0][top : top + 4, left : left + 5])
        corners.add((top, left))
    assert corners == {(y, x) for y in range(3) for x in range(2)}


def test_a_change_is_a_function_of_seed_epoch_and_row():
    one = DenseAugmentation(turn=True, crop=(4, 4), seed=3)
    images = [changed(one, (epoch, row)) for epoch in range(5) for row in range(5)]
    again = [changed(one, (epoch, row)) for epoch in range(5) for row in range(5)]
    assert all(map(torch.equal, images, again))
    other = DenseAugmentation(turn=True, crop=(4, 4), seed=4)
    others = [changed(other, (epoch, row)) for epoch in range(5) for row in range(5)]
    assert sum(map(torch.equal, images, others)) < 5
    assert len({tuple(image.flatten().tolist()) for image in images}) > 15


def test_training_knows_the_epoch_and_evaluation_changes_nothing(tmp_path):
    root = write_folder(tmp_path)
    data = Dense(str(root), targets=["mask"], tasks={"mask": {"ignore_index": 255}}, flip=True)
    rows = data.split("train")
    sampler = data.training_batches(rows, shuffle=True)
    assert isinstance(sampler, EpochBatches)
    batches = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches.append(next(iter(sampler)))
        assert batches[-1].shape == (8, 2)
        assert batches[-1][:, 1].tolist() == [epoch] * 8
    ids = batches[0][:, 0]
    first, second = (rows[torch.stack([ids, torch.full_like(ids, k)], -1)] for k in (0, 1))
    assert torch.equal(first.ids, ids)
    assert not torch.equal(first.inputs, second.inputs)
    assert torch.equal(rows[ids].inputs, rows[ids].inputs)
    plain = Dense(str(root), targets=["mask"], tasks={"mask": {"ignore_index": 255}})
    assert torch.equal(plain.split("train")[ids].inputs, rows[ids].inputs)
