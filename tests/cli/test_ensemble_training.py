"""An ensemble by one command: its members are the runs of their seeds, and it goes on."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.cli.calling import call, refused
from tests.cli.test_ensemble import TOY
from tests.launching import launch, read_json, train, weights


def find_members(folder: Path) -> list[Path]:
    """The run folders of an ensemble's members, as it names them."""
    record = read_json(folder / "ensemble.json")
    return [(folder / member).resolve() for member in record["members"]]


@pytest.mark.slow  # three trainings in processes of their own
def test_members_are_the_runs_of_their_seeds(tmp_path: Path) -> None:
    words = ["--logs", tmp_path, "--name", "mean", *TOY, "--seed", 3, "--ensemble", 2]
    done = launch("src.train", *words)
    assert "mean of the runs" in done.stdout
    [folder] = (tmp_path / "mean").glob("20*")

    members = find_members(folder)
    seeds = [read_json(run / "run.json")["seed"] for run in members]
    assert seeds == [3, 4]
    alone = train(tmp_path / "alone", *TOY, "--seed", 4)
    for name, value in weights(alone).items():
        assert torch.equal(value, weights(members[1])[name]), name

    # the test rows are met once, by the mean
    assert [bool(read_json(run / "metrics.json").get("test")) for run in members] == [False, False]
    assert read_json(folder / "metrics.json")["test"]

    # nothing is trained again
    before = [(run / "checkpoints" / "last.ckpt").stat().st_mtime_ns for run in members]
    again = call("train", *words)
    assert again.code == 0, again
    assert [(run / "checkpoints" / "last.ckpt").stat().st_mtime_ns for run in members] == before
    assert len(list((tmp_path / "mean").glob("20*"))) == 2

    out = tmp_path / "p.csv"
    assert call("predict", "--run", folder, "--out", out).code == 0
    frame = pd.read_csv(out)
    spreads = [name for name in frame.columns if ".spread" in name]
    assert spreads and bool((frame[spreads] > 0).any(axis=None))


def test_a_member_that_fails_ends_the_whole(tmp_path: Path) -> None:
    words = (*TOY, "--logs", tmp_path, "--ensemble", 3, "--model.optimizer.lr", "1e30")
    ended = call("train", *words)
    assert ended.code == 2, ended
    assert ended.err.splitlines()[-1].startswith("error: seed 0: the loss of ")
    assert not list(tmp_path.glob("*/20*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--ensemble", 1), ["--ensemble is 1", "at least 2"]),
        (("--ensemble", "many"), ["ensemble", "many"]),
        (("--ensemble", 2, "--parallel", 0), ["--parallel is 0"]),
        (("--parallel", 2), ["--parallel is of --ensemble"]),
        (("--ensemble", 2, "--resume", "run"), ["--resume cannot go with --ensemble"]),
        (("--ensemble", 2, "--plan"), ["--plan is of one run"]),
        (("--ensemble", 2, "--reference", "constant"), ["src.reference"]),
        (("--ensemble", 2, "--trainer.fast_dev_run", "true"), ["fast_dev_run leaves none"]),
        (("--ensemble", 2, "--model.encoder.width", "wide"), ["model.encoder.width"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else " ".join(map(str, value)),
)
def test_wrong_input(tmp_path: Path, words: tuple[object, ...], says: list[str]) -> None:
    refused(call("train", *TOY, "--logs", tmp_path, *words), says)
    assert not list(tmp_path.rglob("*.ckpt"))
