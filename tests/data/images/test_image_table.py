import inspect
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from src.batch import PADDING
from src.data import ImageTable, MultiMNIST
from src.data.images.augmentation import Augmentation
from src.data.stream import Batches, GlobalBatches
from src.errors import UserError
from src.tasks import BinaryClassification, Regression
from tests.data.images.made_images import ROWS, encode, make_pixels, make_table, zip_images
from tests.launching import ROOT


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return make_table(tmp_path)


def open_table(table: Path, **settings: object) -> ImageTable:
    given = {"root": str(table.parent / "images"), "targets": ["side", "red"], "size": [20, 24]}
    return ImageTable(str(table), **{**given, **settings})  # type: ignore[arg-type]  # by name


def test_tasks_inputs_and_rows(table):
    data = open_table(table)
    assert {name: type(task) for name, task in data.tasks.items()} == {
        "side": BinaryClassification,
        "red": Regression,
    }
    assert data.input_shape.dense == (3, 20, 24)
    sizes = {side: len(data.split(side)) for side in ("train", "val", "test", "predict")}
    assert sum(sizes.values()) == 2 * ROWS
    assert sizes["predict"] == ROWS

    # row 0 is of the size, and its format loses nothing
    batch = data.split("predict")[torch.tensor([0])]
    mean, std = np.array(data.columns[0].mean), np.array(data.columns[0].std)
    expected = (make_pixels(0) / 255 - mean) / std
    np.testing.assert_allclose(
        batch.inputs[0].numpy(), expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-5
    )


def test_pixels_are_standardised_by_training_images(table):
    data = open_table(table)
    rows = data.split("train")
    images = rows[torch.arange(len(rows))].inputs
    np.testing.assert_allclose(images.mean((0, 2, 3)), np.zeros(3), atol=1e-4)
    np.testing.assert_allclose(images.std((0, 2, 3), correction=0), np.ones(3), rtol=1e-4)
    # or as they are
    raw = open_table(table, mean=[0, 0, 0], std=[1, 1, 1]).split("train")
    images = raw[torch.arange(len(rows))].inputs
    assert images.min() >= 0
    assert 0.5 < images.max() <= 1


def test_labels_belong_to_their_images(table):
    data = open_table(table)
    rows = data.split("train")
    batch = rows[torch.arange(len(rows))]
    brighter = batch.inputs[..., :12].mean((1, 2, 3)) > batch.inputs[..., 12:].mean((1, 2, 3))
    positive = data.tasks["side"].classes[1] == "left"
    assert ((batch.targets["side"] == positive) == brighter).all()
    assert rows.row_info["id"][:2] == ["000.png", "001.jpg"]


def test_padding_has_no_labels(table):
    batch = open_table(table).split("train")[torch.tensor([3, PADDING])]
    assert batch.inputs.shape == (2, 3, 20, 24)
    assert not batch.inputs.isnan().any()
    assert batch.targets["side"].isnan().tolist() == [False, True]


def test_the_splits_of_tables(table):
    data = open_table(table, targets=["side"], group="who", grey=True)
    assert data.input_shape.dense == (1, 20, 24)
    sides = [set(data.main["who"].iloc[rows]) for rows in data.rows.values()]
    assert sum(map(len, sides)) == len(set.union(*sides))
    folds = [open_table(table, folds=3, fold=fold).rows["test"] for fold in range(3)]
    assert sorted(np.concatenate(folds)) == list(range(ROWS))


def test_where_images_are(table):
    """Beside the table, below a folder, or in an archive."""
    archive = zip_images(table.parent)
    first = open_table(table).split("train")[torch.arange(5)]
    assert torch.equal(
        open_table(table, root=str(archive)).split("train")[torch.arange(5)].inputs, first.inputs
    )
    beside = table.parent / "images" / "labels.csv"
    beside.write_bytes(table.read_bytes())
    found = open_table(beside, root=None).split("train")[torch.arange(5)]
    assert torch.equal(found.inputs, first.inputs)


def test_a_folder_is_a_table_without_labels(table):
    for path in (table.parent / "images", zip_images(table.parent)):
        data = ImageTable(str(path), targets=["side"], size=8)
        assert data.read(str(path))["image"].tolist() == sorted(
            file.name for file in (table.parent / "images").iterdir()
        )
    (table.parent / "empty").mkdir()
    with pytest.raises(UserError, match="empty: there are no images in it"):
        data.read(str(table.parent / "empty"))


def damage(table: Path) -> None:
    """Cuts one image off, removes one, names none in a row, and damages pixels of another."""
    images = table.parent / "images"
    (images / "001.jpg").write_bytes((images / "001.jpg").read_bytes()[:-30])
    (images / "002.jpg").unlink()
    table.write_text(table.read_text().replace("004.jpg,right", ",right"))
    content = bytearray(encode(make_pixels(6)))
    content[60:64] = b"zzzz"
    (images / "006.png").write_bytes(content)


def test_a_broken_image_ends_the_run(table):
    damage(table)
    settings = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    with pytest.raises(UserError) as caught:
        open_table(table, **settings).schema()
    assert str(caught.value) == (
        f"{table} row 2: column 'file' names '001.jpg', but the file is cut off; "
        "--data.on_error skip leaves such rows out"
    )
    # or when the spread of pixels is measured
    with pytest.raises(
        UserError, match=r"^\S+labels\.csv row \d: the image 00[12]\.jpg is broken: "
    ):
        open_table(table).schema()


def test_or_its_row_is_left_out_and_named(table):
    whole = open_table(table, split_seed=1)
    expected = {}
    for side in ("train", "val", "test"):
        rows = whole.rows[side]
        expected[side] = rows[~np.isin(rows, [1, 2, 4])]
    damage(table)

    data = open_table(table, split_seed=1, on_error="skip")
    for side, rows in expected.items():
        # the other rows stay on their sides
        split = data.split(side)
        assert split.row_info["id"] == data.main["file"].iloc[rows].tolist()
        assert len(data.truth(side)["side"][""]) == len(rows)
    notes = "\n".join(data.notes())
    images = table.parent / "images"
    assert (
        f"{table}: 3 of 61 images are left out: row 2 001.jpg (the file is cut off), "
        f"row 3 002.jpg (there is no such file in {images}), row 5 None (it is missing)"
    ) in notes


def test_what_proves_broken_later_has_no_labels(table):
    damage(table)
    data = open_table(table, on_error="skip")
    side = next(side for side, rows in data.rows.items() if 6 in rows)
    rows = data.split(side)
    place = rows.row_info["id"].index("006.png")
    with pytest.warns(UserWarning, match=r"labels\.csv row 7: the image 006\.png is broken"):
        batch = rows[torch.arange(len(rows))]
    assert batch.targets["side"].isnan().nonzero().flatten().tolist() == [place]
    assert batch.inputs[place].abs().sum() == 0


def test_copies_are_noted(table):
    data = open_table(table)
    tested = data.main["file"].iloc[data.rows["test"][0]]
    trained = data.main["file"].iloc[data.rows["train"][0]]
    images = table.parent / "images"
    (images / tested).write_bytes((images / trained).read_bytes())
    notes = open_table(table).notes()
    assert any(note.startswith("note: 1 of 9 test images (11%) are copies") for note in notes)


def test_a_run_knows_its_images(table, tmp_path):
    from src.files.typed import to_json

    data = open_table(table)
    schema = tmp_path / "schema.json"
    schema.write_bytes(to_json(data.schema()))
    again = open_table(table, targets=None, size=99, schema_path=str(schema))
    again.check_files()
    assert again.input_shape == data.input_shape
    assert again.columns == data.columns
    for side in ("train", "val", "test"):
        assert again.rows[side].tolist() == data.rows[side].tolist()

    # in an archive they are the same images
    archive = zip_images(table.parent)
    open_table(table, root=str(archive), schema_path=str(schema)).check_files()

    (table.parent / "images" / "003.png").write_bytes(encode(make_pixels(50)))
    with pytest.raises(UserError, match="the images are not the ones that the run began with"):
        open_table(table, schema_path=str(schema)).check_files()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"size": [1, 2, 3]}, r"data.size is \[1, 2, 3\]; it is one number of pixels, or"),
        ({"size": 0}, "data.size is 0"),
        ({"mean": [0, 0, 0]}, "data.mean and data.std belong together"),
        ({"mean": [0], "std": [1]}, "data.mean has 1 numbers for 3 channels"),
        ({"mean": [0] * 3, "std": [1, 0, 1]}, "each number must be above 0"),
        ({"root": "nothing"}, "nothing: there is no such folder"),
        ({"image_column": "who"}, "row 1: the image 0 is broken: there is no such file in"),
        ({"targets": ["file", "side"]}, "no column names image files: say which one with --data.i"),
    ],
)
def test_mistakes(table, settings, says):
    with pytest.raises(UserError, match=says):
        open_table(table, **settings).schema()


def count_handles() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("workers", [0, 2])
def test_many_epochs_leave_no_file_open(table, workers):
    """From an archive, whose handle each process has once."""
    data = open_table(table, root=str(zip_images(table.parent)), cache_gb=0.0)
    rows = data.split("train")
    batches = Batches(rows, GlobalBatches(len(rows), 8, shuffle=True), num_workers=workers)
    counts = []
    for _ in range(6):
        for batch in batches:
            assert batch.inputs.shape[1:] == (3, 20, 24)
        counts.append(count_handles())
    # batches of workers that are not yet collected have a handle each
    assert max(counts[1:]) <= counts[0] + 2
    if batches._iterator is not None:
        batches._iterator._shutdown_workers()


def test_changes_are_for_training_only(table):
    class Fake:
        training = True
        current_epoch = 3

    data = open_table(table, augment=Augmentation(shift=3), seed=5)
    data.trainer = Fake()
    ids = torch.arange(7)
    plain = data.split("train")[ids].inputs
    changed = data.on_after_batch_transfer(data.split("train")[ids], 0).inputs
    assert torch.equal(changed, Augmentation(shift=3)(plain, ids, 5, 3))
    assert not torch.equal(changed, plain)
    Fake.training = False
    assert torch.equal(data.on_after_batch_transfer(data.split("train")[ids], 0).inputs, plain)


@pytest.mark.parametrize(
    ("kind", "name"), [(ImageTable, "image_table"), (MultiMNIST, "multi_mnist")]
)
def test_the_configs_state_every_setting(kind, name):
    stated = yaml.safe_load((ROOT / f"configs/data/{name}.yaml").read_text())["init_args"]
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(kind).parameters.items()
        if key not in ("schema_path", "seed")
    }
    assert stated.keys() == defaults.keys()
    for key in defaults.keys() - {"path", "targets", "root"}:
        assert (stated[key] or None) == (defaults[key] or None), key
