"""progress.json: each validation once, whatever the number of sessions and processes."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import call
from tests.launching import launch, only_run, read_json, train
from tests.toy import DROPOUT

SMALL = ("--data", "tests.toy.Toy", "--model.encoder.width", 8)


def read_points(run: Path) -> list[tuple[int, int, float]]:
    content = read_json(run / "progress.json")
    return [(one["step"], one["epoch"], one["score"]) for one in content["validations"]]


def test_each_validation_is_written_with_the_scores_of_its_tasks(tmp_path: Path) -> None:
    call("train", *SMALL, "--max_epochs", 3, "--logs", tmp_path, "--name", "run", "--no_test")
    run = only_run(tmp_path / "run")
    content: dict[str, Any] = read_json(run / "progress.json")
    # 211 rows in batches of 16 are 14 steps
    assert [point[:2] for point in read_points(run)] == [(14, 1), (28, 2), (42, 3)]
    assert (content["step"], content["steps"]) == (42, 42)
    best = max(one["score"] for one in content["validations"])
    validation = read_json(run / "metrics.json")["validation"]
    assert validation["val/score"] == pytest.approx(best, abs=1e-12)
    last = content["validations"][-1]
    assert set(last["tasks"]) == {key.split("/")[1] for key in validation if key.count("/") == 2}
    times = [one["seconds"] for one in content["validations"]]
    assert times == sorted(times)


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    words = ("--max_epochs", 1, "--trainer.accumulate_grad_batches", 4, "--no_test")
    call("train", *SMALL, *words, "--logs", tmp_path, "--name", "run")
    content: dict[str, Any] = read_json(only_run(tmp_path / "run") / "progress.json")
    # 14 batches by fours, the rest at the end of the epoch
    assert (content["step"], content["steps"]) == (4, 4)


def test_a_resumed_run_counts_no_validation_twice(tmp_path: Path) -> None:
    whole = ("--max_epochs", 4, "--model.scheduler", "null", "--no_test")
    call("train", *DROPOUT, *whole, "--logs", tmp_path, "--name", "whole")
    half = ("--max_epochs", 2, "--model.scheduler", "null", "--no_test")
    call("train", *DROPOUT, *half, "--logs", tmp_path, "--name", "half")
    run = only_run(tmp_path / "half")
    call("train", "--resume", run, "--max_epochs", 4)
    assert read_points(run) == read_points(only_run(tmp_path / "whole"))


@pytest.mark.slow
def test_two_processes_write_one_file(tmp_path: Path) -> None:
    words = (*SMALL, "--max_epochs", 2, "--no_test")
    one = train(tmp_path, *words, name="one")
    launch("src.train", *words, "--devices", 2, "--logs", tmp_path, "--name", "two")
    two = only_run(tmp_path / "two")
    for ours, theirs in zip(read_points(two), read_points(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
