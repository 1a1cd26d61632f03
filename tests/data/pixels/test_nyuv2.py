import numpy as np
import pytest
import torch

from src.data import NYUv2
from src.data.pixels.nyuv2 import CLASSES
from src.errors import UserError
from src.tasks import DenseRegression, Segmentation, SurfaceNormals
from tests.data.pixels.dense_files import write_published


@pytest.fixture
def root(tmp_path):
    return write_published(tmp_path)


def test_files_of_mtan(root):
    data = NYUv2(str(root), val_fraction=0.2)
    assert data.input_shape.dense == (3, 12, 16)
    kinds = {name: type(task) for name, task in data.tasks.items()}
    wanted = {"segmentation": Segmentation, "depth": DenseRegression, "normal": SurfaceNormals}
    assert kinds == wanted
    assert len(CLASSES) == len(data.tasks["segmentation"].classes) == 13

    # val tests, and validation images are of train
    assert [len(data.split(side)) for side in ("train", "val", "test")] == [8, 2, 4]
    batch = data.split("test")[torch.arange(4)]
    for row in range(4):
        label = np.load(root / f"val/label/{row}.npy")
        np.testing.assert_array_equal(
            batch.targets["segmentation"][row], np.where(label < 0, -100, label)
        )
        depth = np.load(root / f"val/depth/{row}.npy")[..., 0]
        known = ~batch.targets["depth"][row].isnan().numpy()
        np.testing.assert_array_equal(known, depth != 0)
        normal = np.load(root / f"val/normal/{row}.npy")
        known = ~batch.targets["normal"][row].isnan().any(-1).numpy()
        np.testing.assert_array_equal(known, (normal != 0).any(-1))
        image = np.load(root / f"val/image/{row}.npy")
        np.testing.assert_allclose(batch.inputs[row].movedim(0, -1), image, rtol=1e-6)


def test_validation_and_training_images_are_apart(root):
    data = NYUv2(str(root), val_fraction=0.3)
    train, val = data.split("train").row_info["id"], data.split("val").row_info["id"]
    assert not {*train} & {*val}
    assert {*train} | {*val} == {str(k) for k in range(10)}


def test_settings_of_a_task_stand_beside_those_of_the_data(root):
    tasks = {"depth": {"weight": 2.0}, "segmentation": {"per_class": True}}
    data = NYUv2(str(root), tasks=tasks)
    assert (data.tasks["depth"].weight, data.tasks["depth"].loss) == (2.0, "mae")
    assert data.tasks["segmentation"].ignore_index == -1
    published = NYUv2(str(root), tasks={"depth": {"mean": [0.0], "std": [1.0]}})
    assert published.tasks["depth"].std == (1.0,)


def test_flips_turn_normals(root):
    data = NYUv2(str(root), flip=True)
    split = data.split("train")
    plain = split[torch.arange(8)]
    mirrored = 0
    for epoch in range(4):
        batch = split[torch.stack([torch.arange(8), torch.full((8,), epoch)], -1)]
        for row in range(8):
            if torch.equal(batch.inputs[row], plain.inputs[row]):
                continue
            mirrored += 1
            assert torch.equal(batch.inputs[row], plain.inputs[row].flip(2))
            wanted = plain.targets["normal"][row].flip(1)
            x, y = batch.targets["normal"][row, ..., 0], batch.targets["normal"][row, ..., 1:]
            torch.testing.assert_close(x, -wanted[..., 0], equal_nan=True)
            torch.testing.assert_close(y, wanted[..., 1:], equal_nan=True)
    assert 8 < mirrored < 24


def test_missing_files_say_where_to_get_them(tmp_path):
    with pytest.raises(UserError, match="no such folder or file; get the preprocessed files of"):
        NYUv2(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"image: has no images.*github.com/lorenmt/mtan"):
        assert NYUv2(str(tmp_path)).tasks
