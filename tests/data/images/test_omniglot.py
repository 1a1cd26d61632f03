import os
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.data import Omniglot
from src.errors import UserError
from tests.data.images.made_omniglot import ALPHABETS, draw, write_omniglot

REAL = Path(os.environ.get("MTL_DATA", "nothing")) / "omniglot"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_omniglot(tmp_path_factory.mktemp("data") / "omniglot"))


def test_each_drawing_is_there_once(root):
    data = Omniglot(root)
    characters = sum(ALPHABETS.values())
    assert data.drawings.images.shape == (20 * characters, 1, 28, 28)
    assert [len(task.classes) for task in data.tasks.values()] == [characters, 3]
    assert data.tasks["alphabet"].classes == ("Futurama", "Greek", "Latin")
    sizes = {name: len(data.split(name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 14 * characters, "val": 3 * characters, "test": 3 * characters}
    for name in sizes:
        rows = data.split(name)
        batch = rows[torch.arange(len(rows))]
        per_class = len(rows) // characters
        assert (batch.targets["character"].bincount() == per_class).all()
        for character, alphabet in zip(*batch.targets.values(), strict=True):
            label = data.tasks["character"].classes[character]
            assert label.startswith(data.tasks["alphabet"].classes[alphabet] + "/")


def test_pixels_are_means_of_boxes(root):
    image = Omniglot(root).drawings.images[0, 0]
    rng = np.random.default_rng(len("Futurama"))
    pixels = np.asarray(Image.open(BytesIO(draw(rng, 1)))).astype(float)
    # the bar at the second eight of columns, and nothing but noise on its right
    assert float(image.mean()) == pytest.approx(1 - pixels.mean(), abs=0.01)
    assert float(image[:, 2:4].mean()) == pytest.approx(1 - pixels[:, 8:15].mean(), abs=0.1)
    assert float(image[:, 6:].mean()) < 0.05
    assert 0 <= image.min() < image.max() <= 1


def test_a_task_for_each_alphabet(root):
    data = Omniglot(root, labels="alphabets", alphabets=["Greek", "Latin"])
    assert {name: len(task.classes) for name, task in data.tasks.items()} == {
        "Greek": 5,
        "Latin": 4,
    }
    rows = data.split("train")
    batch = rows[torch.arange(len(rows))]
    known = torch.stack([target >= 0 for target in batch.targets.values()])
    assert (known.sum(0) == 1).all()
    assert (batch.targets["Greek"][known[0]].bincount() == 14).all()


def test_turned_characters_are_others(root):
    plain = Omniglot(root, alphabets=["Greek"])
    turned = Omniglot(root, alphabets=["Greek"], rotations=True)
    assert len(turned.tasks["character"].classes) == 4 * 5
    assert len(turned.tasks["alphabet"].classes) == 1
    rows = turned.split("test")
    count = len(plain.split("test"))
    assert len(rows) == 4 * count
    torch.testing.assert_close(rows.inputs[count : 2 * count], rows.inputs[:count].rot90(1, (2, 3)))


def test_runs(root):
    runs = Omniglot(root).runs()
    assert (len(runs), runs.supports, runs.size) == (2, 20, 40)
    batch = runs[torch.arange(2)]
    label = batch.extras["label"].view(2, 40)
    assert label[0].tolist() == [*range(20), *[-100] * 20]
    targets = batch.targets["label"].view(2, 40)[:, 20:]
    assert (targets.sort(1).values == torch.arange(20)).all()
    # a query is drawn as its support row is
    images = batch.inputs.view(2, 40, -1)
    nearest = torch.cdist(images[:, 20:], images[:, :20]).argmin(-1)
    assert (nearest % 13 == targets % 13).all()


def test_what_is_wrong_with_files(root, tmp_path):
    with pytest.raises(UserError, match=r"neither images_background.zip nor images_background_sm"):
        Omniglot(str(tmp_path))
    with pytest.raises(UserError, match=r"names 'Greec', which is not in .*did you mean 'Greek'"):
        Omniglot(root, alphabets=["Greec"]).tasks  # noqa: B018
    path = tmp_path / "images_background_small1.zip"
    path.write_text("no zip")
    with pytest.raises(UserError, match=r"small1.zip: is no zip that can be read"):
        Omniglot(str(tmp_path)).tasks  # noqa: B018
    with pytest.raises(UserError, match=r"all_runs.zip is not there; get it from"):
        Omniglot(str(tmp_path)).runs()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/Greek/character01/0001_01.png", b"no image")
    with pytest.raises(UserError, match=r"character01/0001_01.png is no image that can be read"):
        Omniglot(str(tmp_path)).tasks  # noqa: B018
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"")
    with pytest.raises(UserError, match="holds no drawing"):
        Omniglot(str(tmp_path)).tasks  # noqa: B018


@pytest.mark.skipif(not REAL.is_dir(), reason="MTL_DATA names no folder with omniglot in it")
def test_the_nearest_neighbour_in_pixels_errs_in_79_percent():
    data = Omniglot(str(REAL))
    assert data.drawings.images.shape[0] == 242 * 20
    batch = data.runs()[torch.arange(20)]
    images = batch.inputs.view(20, 40, -1)
    nearest = torch.cdist(images[:, 20:], images[:, :20]).argmin(-1)
    error = (nearest != batch.targets["label"].view(20, 40)[:, 20:]).double().mean()
    assert float(error) == pytest.approx(0.793, abs=0.005)
