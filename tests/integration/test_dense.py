"""Images with labels per pixel: the same run on any topology, resumed, and in workers."""

import os
from pathlib import Path

import pytest
import torch

from src.data import Dense
from tests.cli.calling import call
from tests.data.pixels.dense_files import write_folder
from tests.launching import curves, furthest, launch, only_run, read_json, train, weights
from tests.toy import KillAt

TASKS = {"mask": {"ignore_index": 255}, "depth": {"missing_value": 0.0}}


def words(root: Path) -> tuple[object, ...]:
    """Flags of a small run with augmentation, missing labels and a label of the whole image."""
    return (
        *("--data", "Dense", "--data.root", root, "--data.tasks.mask.ignore_index", 255),
        *("--data.tasks.mask.dice_weight", 0.5, "--data.tasks.depth.missing_value", 0),
        *("--data.flip", "true", "--data.partial", "true", "--batch_size", 5),
        *("--model.encoder", "UNet", "--model.encoder.width", 4, "--model.encoder.depth", 1),
        *("--max_epochs", 3, "--trainer.log_every_n_steps", 1, "--accelerator", "cpu"),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("dense") / "scenes", 19)
    for number in (2, 3, 5, 7):
        (folder / "normal" / f"{number}.npy").unlink()
    return folder


@pytest.fixture(scope="module")
def one(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    logs = tmp_path_factory.mktemp("one")
    assert call("train", "--logs", logs, "--name", "run", *words(root)).code == 0
    return only_run(logs / "run")


def check_same(run: Path, one: Path) -> None:
    assert furthest(weights(run), weights(one)) < 1e-5
    ours, theirs = curves(run), curves(one)
    tags = [tag for tag in theirs if tag.startswith("train/") and tag.endswith("/loss")]
    assert len(tags) == 4
    for tag in tags:
        assert ours[tag] == pytest.approx(theirs[tag], rel=1e-5)
    for stage in ("validation", "test"):
        mine, others = (read_json(r / "metrics.json")[stage] for r in (run, one))
        assert mine == pytest.approx(others, rel=1e-5, abs=1e-6, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "topology",
    [
        ("--devices", 2),
        ("--devices", 2, "--strategy", "fsdp"),
        ("--devices", 1, "--data.num_workers", 2),
    ],
    ids=["ddp x 2", "fsdp x 2", "workers"],
)
def test_the_same_run(root: Path, one: Path, tmp_path: Path, topology: tuple[object, ...]) -> None:
    check_same(train(tmp_path, *words(root), *topology), one)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(root: Path, one: Path, tmp_path: Path) -> None:
    kill = (*KillAt.flags(5, tmp_path / "killed"), "--watch.checkpoint_every", 2)
    broken = train(tmp_path, *words(root), *kill, code=-9)
    launch("src.train", "--resume", broken, "--trust", "tests")
    assert furthest(weights(broken), weights(one)) == 0.0
    assert read_json(broken / "metrics.json") == read_json(one / "metrics.json")


@pytest.mark.slow
def test_evaluation_on_two_processes(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    launch("src.evaluate", "--run", one, "--devices", 2, "--accelerator", "cpu", "--out", out)
    assert read_json(out) == pytest.approx(read_json(one / "metrics.json")["test"], rel=1e-5)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_no_file_stays_open(root: Path) -> None:
    data = Dense(str(root), tasks=TASKS, partial=True, num_workers=2, batch_size=4)
    loader = data.train_dataloader()
    open_files = []
    for epoch in range(12):
        loader.sampler.set_epoch(epoch)
        assert sum(len(batch.ids) for batch in loader) == 13
        open_files.append(len(os.listdir("/proc/self/fd")))
    assert max(open_files[2:]) <= open_files[1]


def test_augmented_batches_are_those_of_any_worker(root: Path) -> None:
    images, masks = [], []
    for workers in (0, 2):
        data = Dense(str(root), tasks=TASKS, partial=True, flip=True, num_workers=workers)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(3)
        batch = next(iter(loader))
        assert isinstance(batch.inputs, torch.Tensor)
        images.append(batch.inputs)
        masks.append(batch.targets["mask"])
    assert torch.equal(*images)
    assert torch.equal(*masks)
