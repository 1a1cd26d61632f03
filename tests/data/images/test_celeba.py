import zipfile
from pathlib import Path

import pytest
import torch

from src.data import CelebA
from src.errors import UserError
from src.tasks import BinaryClassification, MultilabelClassification
from tests.data.images.made_images import encode, make_pixels

NAMES = ("Bald", "Smiling", "Young")
ROWS = 30


def write_celeba(folder: Path, archive: bool = False) -> None:
    """Writes files of the form of CelebA's: attributes, sides, and aligned portraits."""
    for name in ("Anno", "Eval"):
        (folder / name).mkdir(parents=True)
    lines = [str(ROWS), " ".join(NAMES) + " "]
    sides = []
    for row in range(ROWS):
        signs = [1 if row % 5 == 0 else -1, 1 if row % 2 else -1, 1 if row % 3 else -1]
        name = f"{row + 1:06}.jpg"
        lines.append(f"{name} " + " ".join(f"{sign:2}" for sign in signs))
        sides.append(f"{name} {0 if row < 20 else 1 if row < 26 else 2}")
        content = encode(make_pixels(row, 218 // 8, 178 // 8), "JPEG")
        if archive:
            with zipfile.ZipFile(folder / "img_align_celeba.zip", "a") as file:
                file.writestr(f"img_align_celeba/{name}", content)
        else:
            (folder / "img_align_celeba").mkdir(exist_ok=True)
            (folder / "img_align_celeba" / name).write_bytes(content)
    (folder / "Anno" / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    (folder / "Eval" / "list_eval_partition.txt").write_text("\n".join(sides) + "\n")


@pytest.mark.parametrize("archive", [False, True])
def test_attributes_and_official_split(tmp_path, archive):
    write_celeba(tmp_path, archive)
    data = CelebA(str(tmp_path), size=16)
    assert {name: type(task) for name, task in data.tasks.items()} == dict.fromkeys(
        NAMES, BinaryClassification
    )
    assert {name: len(rows) for name, rows in data.rows.items()} == {
        "train": 20,
        "val": 6,
        "test": 4,
    }
    rows = data.split("val")
    batch = rows[torch.arange(6)]
    assert batch.inputs.shape == (6, 3, 16, 16)
    assert rows.row_info["id"] == [f"{row + 1:06}.jpg" for row in range(20, 26)]
    assert batch.targets["Smiling"].tolist() == [row % 2 for row in range(20, 26)]
    assert batch.targets["Bald"].tolist() == [float(row % 5 == 0) for row in range(20, 26)]


def test_chosen_attributes_as_one_task(tmp_path):
    write_celeba(tmp_path)
    data = CelebA(str(tmp_path), attributes=["Young", "Bald"], multilabel=True, size=16)
    assert isinstance(data.tasks["attributes"], MultilabelClassification)
    batch = data.split("test")[torch.arange(4)]
    expected = [[float(row % 3 > 0), float(row % 5 == 0)] for row in range(26, 30)]
    assert batch.targets["attributes"].tolist() == expected


def test_the_folder_that_is_there_twice(tmp_path):
    write_celeba(tmp_path)
    inner = tmp_path / "img_align_celeba"
    inner.rename(tmp_path / "moved")
    inner.mkdir()
    (tmp_path / "moved").rename(inner / "img_align_celeba")
    assert len(CelebA(str(tmp_path), size=16).split("train")) == 20


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"list_attr_celeba.txt is not there; get it from https"):
        CelebA(str(tmp_path))
    write_celeba(tmp_path)
    with pytest.raises(UserError, match=r"data\.attributes names 'Smilin': did you mean"):
        CelebA(str(tmp_path), attributes=["Smilin"])

    table = tmp_path / "Anno" / "list_attr_celeba.txt"
    good = table.read_text()
    table.write_text(good.replace("000003.jpg -1", "000003.jpg 2"))
    with pytest.raises(UserError, match=r"list_attr_celeba\.txt row 3: Bald is 2, where 1 or -1"):
        CelebA(str(tmp_path)).schema()
    table.write_text(good.partition("\n")[2])
    with pytest.raises(UserError, match="begins with 'Bald Smiling Young', where the number"):
        CelebA(str(tmp_path))
    table.write_text(good)
    for image in (tmp_path / "img_align_celeba").iterdir():
        image.unlink()
    (tmp_path / "img_align_celeba").rmdir()
    with pytest.raises(UserError, match=r"img_align_celeba or img_align_celeba\.zip is not there"):
        CelebA(str(tmp_path))
