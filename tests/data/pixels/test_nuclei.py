import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.data import Nuclei
from src.data.pixels.nuclei import count_nuclei, find_boundary, measure_distance
from src.errors import UserError
from tests.data.pixels.dense_files import draw_nuclei, write_nuclei


def neighbours(y, x, size):
    pairs = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
    return [(i, j) for i, j in pairs if 0 <= i < size and 0 <= j < size]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_labels_by_definition(seed):
    instances = draw_nuclei(np.random.default_rng(seed), size=16, nuclei=5)
    boundary, distance = find_boundary(instances), measure_distance(instances)
    for y, x in np.ndindex(16, 16):
        own = instances[y, x]
        outside = np.argwhere(instances != own)
        wanted = own > 0 and any(instances[place] != own for place in neighbours(y, x, 16))
        assert boundary[y, x] == wanted
        nearest = np.hypot(*(outside - (y, x)).T).min() if own else 0
        assert distance[y, x] == pytest.approx(nearest, rel=1e-6)
    assert count_nuclei(instances) == len({*instances.ravel().tolist()} - {0})


def test_an_image_full_of_one_nucleus():
    whole = np.ones((4, 4), dtype=np.uint16)
    assert find_boundary(whole).sum() == 0
    assert measure_distance(whole).sum() == 0
    assert count_nuclei(whole) == 1
    assert count_nuclei(0 * whole) == 0


def test_four_tasks_and_the_split_of_published_results(tmp_path):
    root = write_nuclei(tmp_path, rows=20)
    data = Nuclei(str(root))
    assert list(data.tasks) == ["foreground", "boundary", "distance", "count"]
    assert data.tasks["count"].pooled
    ids = sorted(np.load(root / "nuclei.npz")["ids"].tolist())
    order = [ids[k] for k in np.random.RandomState(0).permutation(20)]
    wanted = {"train": order[:16], "val": order[16:18], "test": order[18:]}
    arrays = np.load(root / "nuclei.npz")
    for side, names in wanted.items():
        split = data.split(side)
        assert sorted(split.row_info["id"]) == sorted(names)
        batch = split[torch.arange(len(split))]
        for k, name in enumerate(split.row_info["id"]):
            instances = arrays["instances"][arrays["ids"].tolist().index(name)]
            np.testing.assert_array_equal(batch.targets["foreground"][k], instances > 0)
            count = data.tasks["count"].in_units(batch.targets["count"][k, None].double())
            assert count.item() == pytest.approx(count_nuclei(instances), abs=1e-4)


def test_some_of_the_tasks(tmp_path):
    root = write_nuclei(tmp_path)
    data = Nuclei(str(root), targets=["foreground"], tasks={"foreground": {"dice_weight": 0.5}})
    assert list(data.tasks) == ["foreground"]
    assert data.tasks["foreground"].dice_weight == 0.5
    assert data.tasks["foreground"].background == "background"


def write_stage1(root: Path) -> None:
    """Writes two images as published: one in grey with two nuclei, and one in colours."""
    for name, colour in (("aa", 0), ("bb", 40)):
        (root / name / "images").mkdir(parents=True)
        (root / name / "masks").mkdir()
        image = np.zeros((256, 256, 4), np.uint8)
        image[10:20, 10:20, :3] = 90
        image[..., 0] += colour
        image[..., 3] = 255
        Image.fromarray(image).save(root / name / "images" / f"{name}.png")
        for k in range(2):
            mask = np.zeros((256, 256), np.uint8)
            mask[10 + 5 * k : 15 + 5 * k, 10:20] = 255
            Image.fromarray(mask).save(root / name / "masks" / f"{k}.png")


def test_files_as_published(tmp_path):
    write_stage1(tmp_path / "stage1_train")
    source = Nuclei(str(tmp_path)).open(tmp_path)
    assert source.names == ["aa"]
    assert source.arrays["image"].shape == (1, 256, 256)
    assert source.arrays["count"].tolist() == [2]
    assert source.arrays["foreground"].sum() == 100
    assert source.arrays["distance"].max() == 3
    Image.fromarray(np.zeros((9, 256), np.uint8)).save(tmp_path / "stage1_train/aa/masks/1.png")
    with pytest.raises(UserError, match=r"masks/1.png: is 9 x 256, where its image is 256 x 256"):
        Nuclei(str(tmp_path)).open(tmp_path)


def test_missing_files_say_where_to_get_them(tmp_path):
    with pytest.raises(UserError, match=r"no images of 256 x 256; get https://bbbc.broad"):
        assert Nuclei(str(tmp_path)).tasks
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8)))
    with pytest.raises(UserError, match="'instances': is not there"):
        assert Nuclei(str(tmp_path)).tasks


@pytest.mark.skipif("MTL_DATA" not in os.environ, reason="needs MTL_DATA, a folder with dsb2018/")
def test_the_real_data():
    data = Nuclei(str(Path(os.environ["MTL_DATA"]) / "dsb2018"))
    assert [len(data.split(side)) for side in ("train", "val", "test")] == [267, 33, 34]
    counts = data.open(data.root).arrays["count"]
    assert (counts.min(), np.median(counts), counts.max()) == (1, 22, 101)
