import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.data import MultiMNIST
from src.data.images.multi_mnist import overlay
from src.errors import UserError
from tests.cli.calling import call
from tests.data.images.test_idx import write_idx
from tests.launching import only_run, read_json

REAL = Path(os.environ.get("MTL_DATA", "nothing")) / "mnist"


def write_mnist(folder: Path, train: int = 60, test: int = 11) -> dict[str, np.ndarray]:
    """Writes files of the form of MNIST's; each image shows its number in its first pixels."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    arrays = {}
    for part, rows in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (rows, 28, 28))
        images[:, :, 14:] = 0
        arrays[f"{part}-images-idx3-ubyte"] = images
        arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, rows)
    for name, array in arrays.items():
        write_idx(folder / (f"{name}.gz" if name.startswith("train") else name), array)
    return arrays


def test_splits_and_labels(tmp_path):
    arrays = write_mnist(tmp_path)
    data = MultiMNIST(str(tmp_path))
    labels = {
        "train": arrays["train-labels-idx1-ubyte"][:50],
        "val": arrays["train-labels-idx1-ubyte"][50:],
        "test": arrays["t10k-labels-idx1-ubyte"],
    }
    for name, expected in labels.items():
        rows = data.split(name)
        batch = rows[torch.arange(len(rows))]
        assert batch.inputs.shape == (len(expected), 1, 28, 28)
        assert (batch.targets["top_left"].numpy() == expected).all()
        # each digit of the split is once on the bottom right, too
        assert sorted(batch.targets["bottom_right"].tolist()) == sorted(expected)
    assert data.tasks["top_left"].depth == 1
    assert data.tasks["bottom_right"].width == 50

    train = data.split("train").inputs
    assert train.min() == -1
    assert 0.5 < train.max() <= 1


def test_pairs_are_a_function_of_their_seed(tmp_path):
    write_mnist(tmp_path)
    first, again, other = (
        MultiMNIST(str(tmp_path), pair_seed=pair_seed, seed=seed).split("train").inputs
        for pair_seed, seed in ((0, 0), (0, 1), (1, 0))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_two_digits_in_one_image():
    """As Pillow resizes the lighter of both digits on a canvas, within a step of its bytes."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(0, 256, (2, 3, 28, 28), generator=generator, dtype=torch.uint8)
    images = overlay(first, second)
    for k in range(3):
        canvas = np.zeros((36, 36), np.uint8)
        canvas[:28, :28] = first[k].numpy()
        canvas[6:34, 6:34] = np.maximum(canvas[6:34, 6:34], second[k].numpy())
        resized = Image.fromarray(canvas).resize((28, 28), Image.Resampling.BILINEAR)
        assert np.abs((images[k, 0].numpy() + 1) * 127.5 - np.asarray(resized)).max() <= 1


def test_a_fingerprint_names_the_four_files(tmp_path):
    write_mnist(tmp_path)
    data = MultiMNIST(str(tmp_path))
    files = data.fingerprint()["files"]
    assert len(files) == 4
    assert {Path(record["path"]) for record in files.values()} == set(map(Path, data.files()))


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"neither train-images-idx3-ubyte nor .* add --data.downl"):
        MultiMNIST(str(tmp_path))
    write_mnist(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    write_idx(labels, np.full(11, 12))
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte row 1: holds 12, which is no di"):
        MultiMNIST(str(tmp_path)).split("test")
    write_idx(labels, np.zeros(9))
    with pytest.raises(UserError, match=r"holds \(9,\) labels for the 11 images"):
        MultiMNIST(str(tmp_path)).split("test")
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((11, 8, 8)))
    with pytest.raises(UserError, match="no images of 28 x 28 pixels"):
        MultiMNIST(str(tmp_path)).split("test")


@pytest.mark.skipif(not REAL.is_dir(), reason="MTL_DATA names no folder with mnist in it")
def test_the_real_digits():
    data = MultiMNIST(str(REAL))
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [50_000, 10_000, 10_000]
    test = data.split("test")[torch.arange(10_000)]
    counts = test.targets["top_left"].bincount()
    # of MNIST's test digits, as published
    assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test.targets["bottom_right"].bincount().tolist() == counts.tolist()


def test_gzipped_files_are_read_alike(tmp_path):
    write_mnist(tmp_path)
    first = MultiMNIST(str(tmp_path)).split("test").inputs
    for path in list(tmp_path.iterdir()):
        if path.suffix != ".gz":
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    assert torch.equal(MultiMNIST(str(tmp_path)).split("test").inputs, first)


def test_a_run_is_evaluated_and_predicts_from_its_folder_alone(tmp_path):
    write_mnist(tmp_path / "mnist")
    logs = tmp_path / "logs"
    words = ("--data", "MultiMNIST", "--data.root", tmp_path / "mnist", "--model.encoder", "LeNet")
    ended = call("train", *words, "--max_epochs", 1, "--logs", logs, "--name", "digits")
    assert ended.code == 0, ended.err
    run = only_run(logs / "digits")
    out = tmp_path / "test.json"
    ended = call("evaluate", "--run", run, "--out", out)
    assert ended.code == 0, ended.err
    assert read_json(out) == read_json(run / "metrics.json")["test"]
    ended = call("predict", "--run", run, "--split", "test", "--out", tmp_path / "digits.csv")
    assert ended.code == 0, ended.err
    assert len((tmp_path / "digits.csv").read_text().splitlines()) == 12
