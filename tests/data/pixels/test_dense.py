import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from src.batch import PADDING
from src.data import Dense
from src.errors import UserError
from src.tasks import DenseRegression, Regression, Segmentation, SurfaceNormals
from tests.cli.calling import call, refused
from tests.data.pixels.dense_files import write_folder
from tests.launching import only_run, read_json

TASKS = {"mask": {"ignore_index": 255}, "depth": {"missing_value": 0.0}}
SMALL = (
    *("--model.encoder", "UNet", "--model.encoder.width", 4, "--model.encoder.depth", 1),
    *("--max_epochs", 1, "--accelerator", "cpu"),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "scenes")


def words(root: Path) -> tuple[object, ...]:
    return (
        *("--data", "Dense", "--data.root", root, "--data.tasks.mask.ignore_index", 255),
        *("--data.tasks.depth.missing_value", 0, "--logs", root.parent / "logs", "--name", "x"),
    )


def test_kinds_are_those_of_the_files(root):
    data = Dense(str(root), tasks=TASKS)
    kinds = {name: type(task) for name, task in data.tasks.items()}
    assert kinds == {
        "depth": DenseRegression,
        "mask": Segmentation,
        "normal": SurfaceNormals,
        "share": Regression,
    }
    assert data.tasks["share"].pooled
    assert data.input_shape.dense == (1, 12, 16)
    assert "mask: Segmentation of 2 classes" in data.notes()


def test_rows_are_what_the_files_hold(root):
    data = Dense(str(root), tasks=TASKS)
    for side in ("train", "val", "test"):
        split = data.split(side)
        batch = split[torch.arange(len(split))]
        for k, name in enumerate(split.row_info["id"]):
            image = np.asarray(Image.open(root / "image" / f"{name}.png"))
            np.testing.assert_allclose(batch.inputs[k, 0], image / 255, rtol=1e-6)
            mask = np.asarray(Image.open(root / "mask" / f"{name}.png")).astype(int)
            np.testing.assert_array_equal(
                batch.targets["mask"][k], np.where(mask == 255, -100, mask)
            )
            depth = np.load(root / "depth" / f"{name}.npy").astype(float)
            task = data.tasks["depth"]
            wanted = (np.where(depth == 0, np.nan, depth) - task.mean) / task.std
            np.testing.assert_allclose(batch.targets["depth"][k], wanted, rtol=1e-5, atol=1e-6)
            normal = np.load(root / "normal" / f"{name}.npy")
            zero = (normal == 0).all(-1)
            assert batch.targets["normal"][k].isnan().any(-1).numpy().tolist() == zero.tolist()
            share = np.load(root / "share" / f"{name}.npy")
            assert data.tasks["share"].in_units(
                batch.targets["share"][k, None].double()
            ).item() == (pytest.approx(float(share), rel=1e-5))


def test_statistics_are_of_training_images_alone(root):
    data = Dense(str(root), tasks=TASKS)
    maps = [np.load(root / "depth" / f"{n}.npy") for n in data.split("train").row_info["id"]]
    known = np.stack(maps).astype(float)
    known = known[known != 0]
    assert data.tasks["depth"].mean[0] == pytest.approx(known.mean())
    assert data.tasks["depth"].std[0] == pytest.approx(known.std())


def test_sides_follow_from_names(root):
    data = Dense(str(root), tasks=TASKS)
    sides = {side: data.split(side).row_info["id"] for side in ("train", "val", "test")}
    everyone = [*sides["train"], *sides["val"], *sides["test"]]
    assert sorted(everyone, key=int) == [str(k) for k in range(12)]
    assert (len(sides["val"]), len(sides["test"])) == (2, 2)
    fewer = Dense(str(root), targets=["mask"], tasks={"mask": {"ignore_index": 255}})
    assert fewer.split("test").row_info["id"] == sides["test"]
    assert list(fewer.tasks) == ["mask"]
    other = Dense(str(root), tasks=TASKS, split_seed=1)
    assert other.split("test").row_info["id"] != sides["test"]


def test_folders_of_sides_are_taken_as_they_are(root, tmp_path):
    both = tmp_path / "both"
    write_folder(both / "train", 6, seed=1)
    shutil.copytree(root, both / "test")
    data = Dense(str(both), tasks=TASKS, val_fraction=0.3)
    assert len(data.split("test")) == 12
    assert len(data.split("val")) == 2
    assert len(data.split("train")) == 4
    whole = Dense(str(both), tasks=TASKS, test_folder=None, val_fraction=0.2, test_fraction=0.4)
    assert [len(whole.split(side)) for side in ("train", "val", "test")] == [2, 2, 2]


def test_an_npz_has_the_same_rows(root, tmp_path):
    folder = Dense(str(root), tasks=TASKS)
    names = [str(k) for k in range(12)]
    arrays = {
        "image": np.stack([np.asarray(Image.open(root / f"image/{k}.png")) for k in names]),
        "mask": np.stack([np.asarray(Image.open(root / f"mask/{k}.png")) for k in names]),
        "depth": np.stack([np.load(root / f"depth/{k}.npy") for k in names]),
        "share": np.stack([np.load(root / f"share/{k}.npy") for k in names]),
    }
    np.savez(tmp_path / "scenes.npz", names=np.array(names), **arrays)
    file = Dense(str(tmp_path / "scenes.npz"), tasks=TASKS)
    ids = torch.arange(len(file.split("train")))
    one, other = folder.split("train")[ids], file.split("train")[ids]
    assert torch.equal(one.inputs, other.inputs)
    for name in arrays.keys() - {"image"}:
        torch.testing.assert_close(
            one.targets[name], other.targets[name], equal_nan=True, rtol=0, atol=0
        )


def test_padding_has_no_labels(root):
    split = Dense(str(root), tasks=TASKS).split("train")
    batch = split[torch.tensor([3, PADDING])]
    assert batch.ids.tolist() == [3, PADDING]
    assert (batch.targets["mask"][1] == -100).all()
    for name in ("depth", "normal", "share"):
        assert batch.targets[name][1].isnan().all()
        assert batch.targets[name][0].isfinite().any()
    assert split[torch.tensor([PADDING])].inputs.shape == (1, 1, 12, 16)


def test_images_are_resized_and_maps_keep_their_ids(root):
    data = Dense(str(root), tasks=TASKS, size=[6, 8])
    batch = data.split("train")[torch.arange(4)]
    assert batch.inputs.shape == (4, 1, 6, 8)
    assert batch.targets["normal"].shape == (4, 6, 8, 3)
    assert set(batch.targets["mask"].unique().tolist()) <= {-100, 0, 1}
    name = data.split("train").row_info["id"][0]
    mask = np.asarray(Image.open(root / f"mask/{name}.png")).astype(int)
    # of two pixels the second one is at the centre
    wanted = np.where(mask == 255, -100, mask)[1::2, 1::2]
    np.testing.assert_array_equal(batch.targets["mask"][0], wanted)


def test_pixels_of_an_image_get_mean_0_and_deviation_1(root):
    batch = Dense(str(root), tasks=TASKS, standardise=True).split("train")[torch.arange(3)]
    assert batch.inputs.mean((1, 2, 3)).abs().max() < 1e-5
    assert (batch.inputs.std((1, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_a_missing_file_is_refused_or_a_missing_label(root):
    (root / "depth" / "3.npy").unlink()
    with pytest.raises(UserError, match=r"depth: has no file 3\.\* for .*image/3.png; add it"):
        Dense(str(root), tasks=TASKS).split("train")
    data = Dense(str(root), tasks=TASKS, partial=True)
    for side in ("train", "val", "test"):
        split = data.split(side)
        if "3" in split.row_info["id"]:
            row = split[torch.tensor([split.row_info["id"].index("3")])]
            assert row.targets["depth"].shape == (1, 12, 16)
            assert row.targets["depth"].isnan().all()
            assert (row.targets["mask"] >= 0).any()


def break_png(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:70])


def break_npy(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


BROKEN = {
    "truncated picture": ("image/3.png", break_png, ["image/3.png: cannot be read"]),
    "truncated array": ("depth/3.npy", break_npy, ["depth/3.npy: cannot be read"]),
    "no picture": ("mask/3.png", lambda p: p.write_text("hello"), ["mask/3.png: cannot be read"]),
    "wrong size": (
        "mask/3.png",
        lambda p: Image.fromarray(np.zeros((5, 16), np.uint8)).save(p),
        ["mask/3.png: is 5 x 16 (height x width), where", "image/3.png is 12 x 16"],
    ),
    "another size of images": (
        "image/3.png",
        lambda p: Image.fromarray(np.zeros((5, 16), np.uint8)).save(p),
        ["image/3.png: is 5 x 16", "is 12 x 16: resize all by --data.size '[12, 16]'"],
    ),
    "colours": (
        "image/3.png",
        lambda p: Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(p),
        ["image/3.png: has 3 channels, where", "has 1"],
    ),
    "unknown id": (
        "mask/3.png",
        lambda p: Image.fromarray(np.full((12, 16), 7, np.uint8)).save(p),
        ["mask/3.png: holds the id 7 at row 0, column 0, where the classes have 0, 1, and 255"],
    ),
    "not finite": (
        "depth/3.npy",
        lambda p: np.save(p, np.full((12, 16), np.inf)),
        ["depth/3.npy: holds inf at row 0, column 0"],
    ),
    "text": (
        "depth/3.npy",
        lambda p: np.save(p, np.full((12, 16), "x")),
        ["depth/3.npy: holds values of type <U1"],
    ),
    "pickles": (
        "depth/3.npy",
        lambda p: np.save(p, np.array([{}]), allow_pickle=True),
        ["depth/3.npy: cannot be read"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_line_or_skipped(case, root):
    file, damage, says = BROKEN[case]
    damage(root / file)
    # classes and units by hand, so that they do not depend on the broken file
    settings = {
        "mask": {"ignore_index": 255, "classes": ["floor", "square"]},
        "depth": {"missing_value": 0.0, "mean": [2.0], "std": [1.0]},
    }

    def read(**more):
        data = Dense(str(root), tasks=settings, **more)
        for side in ("train", "val", "test"):
            data.split(side)[torch.arange(len(data.split(side)))]
        return data

    with pytest.raises(UserError) as caught:
        read()
    assert "\n" not in str(caught.value)
    for word in says:
        assert word in str(caught.value)

    data = read(on_error="skip")
    notes = [note for note in data.notes() if note.startswith("skipped")]
    assert len(notes) == 1
    assert "skipped 1 of" in notes[0]
    assert says[0] in notes[0]
    assert sum(len(data.split(side)) for side in ("train", "val", "test")) == 11


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"root": "/nowhere"}, "/nowhere: there is no such folder or file"),
        ({"image": "photos"}, "photos: has no images; a folder of images is expected there"),
        ({"targets": ["mesk"]}, "mesk: is not there; did you mean 'mask'?"),
        ({"tasks": {"mesk": {}}}, "data.tasks names 'mesk': did you mean 'mask'?"),
        ({"tasks": {"mask": "Segmentatio"}}, "data.tasks.mask is set to the unknown kind"),
        ({"tasks": {"mask": {"classs": 3}}}, "data.tasks.mask has no setting 'classs'"),
        ({"tasks": {"mask": "SurfaceNormals"}}, "where (height, width, 3) is expected"),
        ({"tasks": {"depth": "Regression"}}, "where a Regression has one label for each image"),
        ({"size": [3]}, "data.size is [3]; it must be [height, width]"),
        ({"crop": [40, 4]}, "data.crop is [40, 4], where images are 12 x 16"),
        ({"crop": [4, 4]}, "task 'share' (Regression) has a label of a whole image"),
        ({"turn": True, "targets": ["normal"]}, "directions, which do not turn"),
        ({"val_fraction": 0.0}, "data.val_fraction is 0.0; a share lies in (0, 1)"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
    ],
)
def test_wrong_settings(root, more, says):
    settings = {"root": str(root), **more}

    def read():
        data = Dense(**settings)
        assert data.tasks
        data.split("train")[torch.arange(2)]

    with pytest.raises(UserError) as caught:
        read()
    assert says in str(caught.value)


def test_files_without_an_image_are_noted(root):
    np.save(root / "depth" / "99.npy", np.ones((12, 16)))
    notes = Dense(str(root), tasks=TASKS).notes()
    assert any("depth: 1 files belong to no image of image, such as 99.npy" in n for n in notes)
    shutil.copy(root / "depth" / "3.npy", root / "image" / "3.npy")
    with pytest.raises(UserError, match=r"has the same name as 3\.npy"):
        Dense(str(root), tasks=TASKS).split("train")


def test_a_run_reads_its_files_and_new_ones(root):
    assert call("train", *words(root), *SMALL, "--data.flip", "true").code == 0
    run = only_run(root.parent / "logs" / "x")
    recorded = read_json(run / "metrics.json")["test"]
    assert read_json(run / "run.json")["data"]["files"]["root"]["count"] == 60
    out, table = root.parent / "out.json", root.parent / "p.csv"
    assert call("predict", "--run", run, "--split", "test", "--out", table).code == 0
    check_labels(root, pd.read_csv(table))

    # moved files are the run's, changed ones are not
    moved = root.parent / "moved"
    shutil.copytree(root, moved)
    ended = call("evaluate", "--run", run, "--data.root", moved, "--out", out)
    assert ended.code == 0, ended.err
    assert read_json(out) == pytest.approx(recorded, rel=1e-6)
    Image.fromarray(np.ones((12, 16), np.uint8)).save(root / "mask" / "1.png")
    refused(call("evaluate", "--run", run), ["its files are not those that the run began with"])

    new = write_folder(root.parent / "new", 5, seed=9)
    shutil.rmtree(new / "normal")
    ended = call("evaluate", "--run", run, "--data.root", new, "--out", out, "--overwrite")
    assert ended.code == 0, ended.err
    assert "5 new images of" in ended.out
    assert read_json(out)["test/normal/mean"] is None
    maps, table = root.parent / "maps", root.parent / "new.csv"
    ended = call("predict", "--run", run, "--data.root", new, "--out", table, "--maps", maps)
    assert ended.code == 0, ended.err
    assert pd.read_csv(table)["id"].tolist() == [0, 1, 2, 3, 4]
    assert np.load(maps / "mask" / "4.npy").dtype == np.uint8
    assert np.load(maps / "normal" / "4.npy").shape == (12, 16, 3)

    colours = root.parent / "colours" / "image"
    colours.mkdir(parents=True)
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(colours / "a.png")
    ended = call(
        "predict", "--run", run, "--data.root", colours.parent, "--out", root.parent / "c.csv"
    )
    refused(ended, ["a.png: has 3 channels, where the images of the run have 1"])


def check_labels(root: Path, frame: pd.DataFrame) -> None:
    """Checks the labels beside predictions."""
    for _, row in frame.iterrows():
        mask = np.asarray(Image.open(root / f"mask/{row['id']:.0f}.png"))
        share = (mask == 1).sum() / (mask != 255).sum()
        assert row["true.mask.share_1"] == pytest.approx(share, abs=1e-6)
        depth = np.load(root / f"depth/{row['id']:.0f}.npy")
        assert row["true.depth.mean"] == pytest.approx(depth[depth != 0].mean(), abs=1e-4)
