import torch

from src.data import Cityscapes
from tests.data.pixels.dense_files import write_published


def test_files_of_mtan(tmp_path):
    root = write_published(tmp_path, label="label_7", classes=7, normals=False)
    data = Cityscapes(str(root), label="label_7", val_fraction=0.2)
    assert list(data.tasks) == ["segmentation", "depth"]
    assert len(data.tasks["segmentation"].classes) == 7
    assert [len(data.split(side)) for side in ("train", "val", "test")] == [8, 2, 4]
    batch = data.split("train")[torch.arange(8)]
    assert batch.inputs.shape == (8, 3, 12, 16)
    assert batch.targets["segmentation"].unique().tolist() == [-100, *range(7)]
    assert batch.targets["depth"][batch.targets["depth"].isfinite()].std() > 0.5
