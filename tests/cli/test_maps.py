"""Predictions of tokens and of pixels: a text a sentence, a file an image."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.calling import call, refused
from tests.launching import only_run

UNET = ("--model.encoder", "UNet", "--model.encoder.width", 4, "--model.encoder.depth", 1)
WORDS = ("--model.encoder", "Transformer", "--model.encoder.width", 8, "--model.encoder.depth", 1)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images with labels of pixels."""
    logs = tmp_path_factory.mktemp("pixels")
    words = ("--data", "tests.toy_uses.Pixels", *UNET, "--max_epochs", 2)
    assert call("train", "--logs", logs, "--name", "pixels", *words).code == 0
    return only_run(logs / "pixels")


def test_maps_hold_the_prediction_of_each_pixel(pixels: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    flags = ("--run", pixels, "--split", "test", "--trust", "tests")
    done = call("predict", *flags, "--out", out, "--maps", tmp_path / "maps")
    assert done.code == 0, done.err
    table = pd.read_csv(out)
    assert len(table) == 29
    masks = [np.load(tmp_path / "maps" / "mask" / f"photo_{k}.npy") for k in range(29)]
    assert {mask.shape for mask in masks} == {(6, 5)}
    assert set(np.unique(masks)) <= {0, 1, 2}

    # the table has the shares of what the maps have
    shares = [(mask == 2).mean() for mask in masks]
    np.testing.assert_allclose(table["mask.share_light"], shares, atol=1e-6)
    normals = np.load(tmp_path / "maps" / "normal" / "photo_3.npy")
    assert normals.shape == (6, 5, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-3)

    done = call("predict", *flags, "--out", tmp_path / "b.csv", "--maps", tmp_path / "maps")
    refused(done, ["--maps", "holds files already"])


def test_an_ensemble_writes_the_maps_of_its_mean(pixels: Path, tmp_path: Path) -> None:
    flags = ("--split", "test", "--trust", "tests")
    for name, run in (("one", f"{pixels}"), ("two", f"{pixels},{pixels}")):
        out = tmp_path / f"{name}.csv"
        done = call("predict", "--run", run, *flags, "--out", out, "--maps", tmp_path / name)
        assert done.code == 0, done.err
    # a run twice predicts as the run
    heights = [np.load(tmp_path / name / "height" / "photo_5.npy") for name in ("one", "two")]
    np.testing.assert_array_equal(*heights)


def test_tokens_become_a_text_a_sentence(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    words = ("--data", "tests.toy_uses.Words", *WORDS, "--max_epochs", 1)
    assert call("train", "--logs", logs, "--name", "words", *words).code == 0
    run = only_run(logs / "words")
    out = tmp_path / "table.csv"
    flags = ("--run", run, "--split", "test", "--trust", "tests")
    assert call("predict", *flags, "--out", out).code == 0
    table = pd.read_csv(out, keep_default_na=False)
    tags = [text.split(" ") for text in table["upos"]]
    spans = [text.split(" ") for text in table["spans"]]
    assert [len(own) for own in tags] == [len(own) for own in spans]
    assert {len(own) for own in tags} == {1, 2, 3, 4, 5, 6, 7}
    assert {tag for own in tags for tag in own} <= {"a", "b", "c"}

    # no task has maps
    done = call("predict", *flags, "--out", tmp_path / "b.csv", "--maps", tmp_path / "maps")
    refused(done, ["leave --maps out"])
