"""Runs on images: the same on any number of processes and workers, after a kill, and elsewhere."""

import csv
from pathlib import Path

import pytest

from tests.cli.calling import call, refused
from tests.data.images.made_images import ROWS, make_table, zip_images
from tests.integration.test_resume import assert_same, checkpoint
from tests.launching import curves, furthest, launch, only_run, read_json, train, weights
from tests.toy import KillAt

SETTINGS: tuple[object, ...] = (
    *("--data", "ImageTable", "--data.targets", "[side, red]", "--data.size", 16),
    *("--data.batch_size", 8, "--data.augment", "Augmentation", "--data.augment.flip", "true"),
    *("--data.augment.shift", 2, "--data.augment.brightness", 0.3, "--data.augment.contrast", 0.2),
    *("--model.encoder", "ConvNet", "--model.encoder.width", 8, "--model.encoder.depth", 2),
    *("--max_epochs", 3, "--trainer.log_every_n_steps", 1, "--watch.checkpoint_every", 2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    make_table(path)
    zip_images(path)
    return path


def name_data(folder: Path) -> tuple[object, ...]:
    return ("--data.path", folder / "labels.csv", "--data.root", folder / "images")


@pytest.fixture(scope="module")
def one(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, without workers."""
    logs = tmp_path_factory.mktemp("one")
    ended = call("train", *SETTINGS, *name_data(folder), "--logs", logs, "--name", "run")
    assert ended.code == 0, ended.err
    return only_run(logs / "run")


def test_two_processes_with_workers_train_alike(one: Path, folder: Path, tmp_path: Path) -> None:
    """From an archive, without a cache."""
    more = ("--data.num_workers", 1, "--data.cache_gb", 0, "--devices", 2)
    two = train(
        tmp_path, *SETTINGS, *name_data(folder), "--data.root", folder / "images.zip", *more
    )
    assert furthest(weights(two), weights(one)) < 1e-5
    ours, theirs = curves(two), curves(one)
    for task in ("side", "red"):
        losses = theirs[f"train/{task}/loss"]
        assert len(losses) >= 15
        assert ours[f"train/{task}/loss"] == pytest.approx(losses, rel=1e-5)
    for stage in ("validation", "test"):
        measured = read_json(two / "metrics.json")[stage]
        assert measured == pytest.approx(read_json(one / "metrics.json")[stage], rel=1e-5)


def test_changes_make_another_run(one: Path, folder: Path, tmp_path: Path) -> None:
    """The comparison above would notice other changes."""
    more = ("--data.augment.shift", 3, "--logs", tmp_path, "--name", "run")
    assert call("train", *SETTINGS, *name_data(folder), *more).code == 0
    assert furthest(weights(only_run(tmp_path / "run")), weights(one)) > 1e-3


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(one: Path, folder: Path, tmp_path: Path) -> None:
    """In the middle of an epoch, with workers."""
    kill = KillAt.flags(9, tmp_path / "marker")
    words = (*SETTINGS, *name_data(folder), "--data.num_workers", 2, *kill)
    whole = train(tmp_path / "whole", *SETTINGS, *name_data(folder), "--data.num_workers", 2)
    broken = train(tmp_path / "broken", *words, code=-9)
    launch("src.train", "--resume", broken)
    ours, theirs = checkpoint(broken, "last"), checkpoint(whole, "last")
    assert_same(ours["state_dict"], theirs["state_dict"])
    assert furthest(weights(whole), weights(one)) == 0.0


def test_evaluation_reads_the_run_s_images(one: Path, folder: Path, tmp_path: Path) -> None:
    words = ("--run", one, "--split", "test", "--out", tmp_path / "out.json")
    assert call("evaluate", *words, "--data.root", folder / "images.zip").code == 0
    recorded = read_json(one / "metrics.json")["test"]
    assert read_json(tmp_path / "out.json") == pytest.approx(recorded, rel=1e-6)


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize("kind", ["table", "folder", "archive"])
def test_new_images_are_predicted(one: Path, folder: Path, tmp_path: Path, kind: str) -> None:
    names = sorted(path.name for path in (folder / "images").iterdir())
    new = tmp_path / "new.csv"
    new.write_text("\n".join(["file", *names[:5]]) + "\n")
    words = {
        "table": ("--data.path", new, "--data.root", folder / "images"),
        "folder": ("--data.path", folder / "images"),
        "archive": ("--data.path", folder / "images.zip"),
    }[kind]
    out = tmp_path / "out.csv"
    ended = call("predict", "--run", one, *words, "--out", out)
    assert ended.code == 0, ended.err
    rows = read_csv(out)
    expected = names[:5] if kind == "table" else names
    assert [row["id"] for row in rows] == expected
    assert len(expected) in (5, ROWS)

    # the same predictions as of the run's own rows
    ended = call("predict", "--run", one, "--out", tmp_path / "own.csv")
    assert ended.code == 0, ended.err
    own = {row["id"]: row for row in read_csv(tmp_path / "own.csv")}
    for row in rows:
        assert row["side"] == own[row["id"]]["side"]
        assert float(row["red"]) == pytest.approx(float(own[row["id"]]["red"]), rel=1e-4)


def test_a_broken_image_is_answered_by_one_line(folder: Path, tmp_path: Path) -> None:
    table = make_table(tmp_path / "broken", 40)
    image = table.parent / "images" / "003.png"
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    words = (*SETTINGS, *name_data(table.parent), "--logs", tmp_path, "--name", "run")
    refused(call("train", *words), [f"{table} row 4", "003.png", "--data.on_error skip"])
    ended = call("train", *words, "--data.on_error", "skip", "--max_epochs", 1)
    assert ended.code == 0, ended.err
    assert "1 of 40 images are left out: row 4 003.png (the file is cut off)" in ended.out


@pytest.mark.slow
def test_one_that_is_found_by_a_worker_too(tmp_path: Path) -> None:
    """Its pixels are damaged, its ends are not."""
    table = make_table(tmp_path / "broken", 40)
    for image in (table.parent / "images").glob("*.png"):
        content = bytearray(image.read_bytes())
        content[60:64] = b"zzzz"
        image.write_bytes(content)
    plain = ("--data.mean", "[0, 0, 0]", "--data.std", "[1, 1, 1]")
    words = (*SETTINGS, *name_data(table.parent), *plain, "--data.num_workers", 1)
    done = launch("src.train", "--logs", tmp_path, "--name", "run", *words, code=2)
    assert done.stderr.count("error: ") == 1
    line = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert ".png is broken" in line
    assert "labels.csv row " in line

    skipped = launch("src.train", "--logs", tmp_path, *words, "--data.on_error", "skip")
    assert "its labels count nowhere" in skipped.stderr
