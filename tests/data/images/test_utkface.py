from pathlib import Path

import pytest
import torch

from src.data import UTKFace
from src.data.images.utkface import parse_name
from src.errors import UserError
from src.files.typed import to_json
from src.tasks import BinaryClassification, Classification, Regression
from tests.data.images.made_images import encode, make_pixels

ROWS = 60


def write_utkface(folder: Path) -> None:
    """Writes files of the form of UTKFace's, one of them without an ethnicity."""
    folder.mkdir()
    for row in range(ROWS):
        name = f"{10 + row}_{row % 2}_{row % 5}_20170109{row:09}.jpg.chip.jpg"
        if row == 7:
            name = "17_1_20170116174525125.jpg.chip.jpg"
        (folder / name).write_bytes(encode(make_pixels(row, 20, 20), "JPEG"))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("26_0_2_20170104023102422.jpg.chip.jpg", (26, "male", "asian")),
        ("part1/100_1_0_20170112213500903.jpg", (100, "female", "white")),
        ("39_1_20170116174525125.jpg.chip.jpg", (39, "female", None)),
        ("61_3_20170109150557335.jpg.chip.jpg", (61, None, None)),
        ("photo.jpg", (None, None, None)),
        ("20170104.jpg", (None, None, None)),
    ],
)
def test_labels_in_names(name, labels):
    assert parse_name(name) == labels


def test_tasks_and_labels(tmp_path):
    write_utkface(tmp_path / "faces")
    data = UTKFace(str(tmp_path / "faces"), size=16)
    assert {name: type(task) for name, task in data.tasks.items()} == {
        "age": Regression,
        "gender": BinaryClassification,
        "race": Classification,
    }
    rows = data.split("predict")
    found = data.truth("train")
    for number, name in enumerate(data.split("train").row_info["id"]):
        labels = parse_name(name)
        assert [found[task][""][number] for task in ("age", "gender", "race")] == list(labels)
    assert len(rows) == ROWS
    targets = [data.encode_targets_of("train", name) for name in ("age", "gender", "race")]
    assert [int((y == -100).sum() + y.isnan().sum()) for y in targets] == [0, 0, 1]


def test_a_run_knows_its_folder(tmp_path):
    write_utkface(tmp_path / "faces")
    data = UTKFace(str(tmp_path / "faces"), size=16)
    ids = torch.arange(5)
    expected = data.split("val")[ids].inputs
    schema = tmp_path / "schema.json"
    schema.write_bytes(to_json(data.schema()))
    (tmp_path / "faces").rename(tmp_path / "moved")
    again = UTKFace(str(tmp_path / "moved"), schema_path=str(schema))
    again.check_files()
    assert not again.is_new
    assert torch.equal(again.split("val")[ids].inputs, expected)

    # portraits without labels, for prediction
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "me.png").write_bytes(encode(make_pixels(1)))
    new = UTKFace(str(tmp_path / "new"), schema_path=str(schema))
    assert new.is_new
    assert new.split("predict").row_info["id"] == ["me.png"]


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"nothing: there are no images; get UTKFace from https"):
        UTKFace(str(tmp_path / "nothing")).schema()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "me.png").write_bytes(encode(make_pixels(1)))
    with pytest.raises(
        UserError, match=r"no image is named .*, as in UTKFace: the first is me.png"
    ):
        UTKFace(str(tmp_path / "other")).schema()
