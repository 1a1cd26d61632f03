"""python -m src.sweep: mistakes in a line, tables of trials without processes, and real ones."""

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from src.run.lock import Holder, find_start
from tests.analysis.fake_executor import FakeExecutor, read_flags
from tests.cli.calling import Ended, call, refused
from tests.launching import ROOT, finish, launch, start

pytest.importorskip("optuna")

TOY = ("--data", "tests.toy.Toy", "--accelerator", "cpu")
LR = "{lr: {low: 0.001, high: 0.1, log: true}}"
RATES = "{lr: [0.01, 0.02, 0.03]}"
WIDTHS = "{lr: [0.01, 0.02], model.encoder.width: [8, 16]}"


def score(command: list[str]) -> float:
    flags = read_flags(command)
    return float(flags["lr"]) + float(flags.get("model.encoder.width", 0)) / 100


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
    """Trials without processes."""
    fake = FakeExecutor(score)
    monkeypatch.setattr("src.cli.sweep.choose_executor", lambda *words: fake)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setenv("COLUMNS", "160")
    return fake


def sweep(tmp_path: Path, *words: object, space: str = RATES) -> Ended:
    return call("sweep", *TOY, "--sweep", space, "--logs", tmp_path / "logs", *words)


def read_record(tmp_path: Path, name: str = "sweep-toy") -> dict[str, Any]:
    record: dict[str, Any] = json.loads((tmp_path / "logs" / name / "sweep.json").read_text())
    return record


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--sweep is missing: a file"),
        (("--sweep", "nowhere.yaml"), "--sweep nowhere.yaml: No such file or directory"),
        (("--sweep", "{lr: ["), "--sweep, line 1: not valid YAML"),
        (("--sweep", "{}"), "--sweep is {}, where settings with their values belong"),
        (("--sweep", "{lr: 0.1}"), "--sweep: lr is 0.1; a list of values belongs there"),
        (("--sweep", "{lr: {low: 1, high: 0.1}}"), "--sweep: lr from 1 to 0.1 is reversed"),
        (
            ("--sweep", "{lr: {low: 0, high: 0.1, log: true}}"),
            "--sweep: lr.low is 0, whose logarithm is not defined",
        ),
        (("--sweep", "{lrr: [1, 2]}"), "--sweep: unknown key 'lrr'"),
        (
            ("--sweep", "{model: {encoder.widht: [8, 16]}}"),
            "did you mean 'model.encoder.width'",
        ),
        (("--sweep", "{lr: [0.1, fast]}"), "--sweep: model.optimizer.lr"),
        (
            ("--sweep", "{model.balancer: [UPGrad, UPGrat]}"),
            "--sweep: model.balancer: unknown class 'UPGrat'; did you mean 'UPGrad'?",
        ),
        (
            ("--sweep", "{lr: [0.1], model.optimizer.lr: [1]}"),
            "--sweep: lr and model.optimizer.lr are the same setting",
        ),
        (("--sweep", "{seed: [1, 2]}"), "--sweep: seed cannot be tuned: the best seed"),
        (("--sweep", "{name: [a, b]}"), "--sweep: name cannot be tuned: it changes no result"),
        (("--sweep", LR, "--trials", "0"), "--trials is '0'; it must be a whole number from 1"),
        (("--sweep", LR, "--parallel", "two"), "--parallel is 'two'; it must be a whole number"),
        (("--sweep", LR, "--prune_after", "0"), "--prune_after is '0'"),
        (("--sweep", LR, "--sampler", "tep"), "there is no sampler 'tep'; did you mean 'tpe'?"),
        (("--sweep", LR, "--executor", "slrm"), "--executor is 'slrm'; did you mean 'slurm'?"),
        (("--sweep", LR, "--cluster", "[1]"), "--cluster [1]: a mapping of settings belongs"),
        (
            ("--sweep", LR, "--objectives", "[digt, odd]"),
            "--objectives names 'digt', which is no task; there are class, class2, binary",
        ),
        (("--sweep", LR, "--objectives", "[rare, rare]"), "--objectives names 'rare' twice"),
        (("--sweep", LR, "--objectives", "{kind: 1}"), "it must name tasks, such as"),
        (
            ("--sweep", LR, "--objectives", "[class, rare]", "--prune_after", "5"),
            "--prune_after cannot go with several --objectives",
        ),
        (("--sweep", LR, "--no_test"), "--no_test cannot go with a sweep"),
        (("--sweep", LR, "--lr"), "lr"),
        (("--sweep", LR, "--trials"), "--trials needs a value"),
        (("--sweep", LR, "--batch_siz", "8"), "unknown key 'batch_siz'"),
    ],
)
def test_a_mistake_is_found_before_any_trial(
    words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    refused(call("sweep", *TOY, *words, "--logs", tmp_path / "logs"), [says])
    assert not list(tmp_path.rglob("config.yaml"))


def test_the_best_and_how_to_go_on(executor: FakeExecutor, tmp_path: Path) -> None:
    ended = sweep(tmp_path, "--seed", "3", space=WIDTHS)
    assert ended.code == 0
    record = read_record(tmp_path)
    scores = {
        (t["settings"]["lr"], t["settings"]["model.encoder.width"]): t for t in record["tries"]
    }
    assert {key: one["scores"] for key, one in scores.items()} == {
        ("0.01", "8"): [0.09],
        ("0.01", "16"): [0.17],
        ("0.02", "8"): [0.1],
        ("0.02", "16"): [0.18],
    }
    for command in executor.commands:
        flags = read_flags(command)
        assert (flags["data"], flags["seed_everything"]) == ("tests.toy.Toy", "3")
        assert "no_test" in flags

    # the best is the first line of the table
    best = scores["0.02", "16"]
    lines = ended.out.splitlines()
    assert lines[0].startswith("4 settings tried on validation rows (4 finished)")
    assert lines[1].split()[:4] == ["val/score", "lr", "model.encoder.width", "time"]
    assert lines[2].split()[:3] == ["0.1800", "0.02", "16"]
    assert (
        "train with the best: python -m src.train --data tests.toy.Toy --trainer.accelerator cpu "
        "--seed_everything 3 --lr 0.02 --model.encoder.width 16" in ended.out
    )
    assert f"python -m src.evaluate --run {tmp_path / 'logs' / best['run']}" in ended.out

    # a run that was removed is said, and not trained anew
    (tmp_path / "logs" / "trials").rename(tmp_path / "elsewhere")
    again = sweep(tmp_path, "--seed", "3", space=WIDTHS)
    assert again.code == 0
    assert again.out.count("(gone)") == 4
    assert len(executor.commands) == 4


def test_a_file_of_the_space(executor: FakeExecutor, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("lr: [0.01, 0.02]\nmodel:\n  encoder.width: [8, 16]\n")
    assert sweep(tmp_path, "--trials", "2", "--name", "mine", space=str(path)).code == 0
    assert len(executor.commands) == 2
    assert read_record(tmp_path, "mine")["space"] == {
        "lr": ["0.01", "0.02"],
        "model.encoder.width": ["8", "16"],
    }


def test_the_same_sweep_goes_on_and_another_is_refused(
    executor: FakeExecutor, tmp_path: Path
) -> None:
    assert sweep(tmp_path, "--trials", "2").code == 0
    assert sweep(tmp_path, "--trials", "3").code == 0
    assert len(executor.commands) == 3
    refused(sweep(tmp_path, space=LR), ["search.log is of a search with another space"])
    refused(sweep(tmp_path, "--batch_size", "8"), ["is of a sweep of another configuration"])


def test_a_folder_of_something_else(executor: FakeExecutor, tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "sweep-toy"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    refused(sweep(tmp_path), ["sweep-toy is there already and holds no sweep.json"])
    (folder / "thesis.txt").rename(folder / "sweep.json")
    refused(sweep(tmp_path), ["sweep.json is damaged"])


def test_a_sweep_that_another_process_runs(executor: FakeExecutor, tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "sweep-toy"
    folder.mkdir(parents=True)
    other = subprocess.Popen(["sleep", "100"])
    try:
        holder = replace(Holder.this(), pid=other.pid, started=find_start(other.pid))
        (folder / "sweep.lock").write_text(json.dumps(asdict(holder)))
        refused(sweep(tmp_path), [f"is being run by process {other.pid}", "wait until it has"])
    finally:
        other.kill()
        other.wait()
    # one that has ended left it behind
    ended = sweep(tmp_path, "--trials", "1")
    assert ended.code == 0
    assert "which was killed; taking it over" in ended.err
    assert not (folder / "sweep.lock").exists()


def test_the_spaces_of_the_project(executor: FakeExecutor, tmp_path: Path) -> None:
    """Each of their values makes a run of the default data."""
    paths = sorted((ROOT / "configs" / "sweep").glob("*.yaml"))
    assert paths
    for path in paths:
        words = ("--sweep", path, "--trials", 1, "--name", path.stem)
        ended = call("sweep", *words, "--logs", tmp_path / "logs", "--accelerator", "cpu")
        assert ended.code == 0, ended


def test_all_trials_fail(executor: FakeExecutor, tmp_path: Path) -> None:
    executor.score = lambda command: None
    ended = sweep(tmp_path, space="{lr: [0.01]}")
    assert ended.code == 2
    lines = ended.err.splitlines()
    assert lines[0] == "[1/1] lr=0.01: failed: it was made to fail"
    assert lines[1].startswith("error: every trial of ")
    assert lines[1].endswith("has failed, the first one by: it was made to fail")


def test_a_pareto_front(
    executor: FakeExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task gains by the width, the other loses."""

    def leave_run(command: list[str]) -> int:
        code = FakeExecutor.leave_run(executor, command)
        flags = read_flags(command)
        (run,) = (Path(flags["logs"]) / flags["name"]).iterdir()
        width = float(flags["model.encoder.width"]) / 100
        values = {"val/class/accuracy": width, "val/number/r2": -width - float(flags["lr"])}
        (run / "metrics.json").write_text(json.dumps({"validation": values}))
        return code

    monkeypatch.setattr(executor, "leave_run", leave_run)
    ended = sweep(tmp_path, "--objectives", "[class, number]", space=WIDTHS)
    assert ended.code == 0, ended
    lines = ended.out.splitlines()
    assert lines[1].split()[:4] == ["class", "accuracy", "number", "r2"]
    rows = sorted(line.split()[:4] for line in lines[2:4])
    assert rows == [["0.0800", "-0.0900", "0.01", "8"], ["0.1600", "-0.1700", "0.01", "16"]]
    assert "choose one by its validation scores, and test it once" in ended.out


# -- real trials -----------------------------------------------------------------------------------
@pytest.mark.slow
def test_an_interrupted_sweep_of_real_runs(tmp_path: Path) -> None:
    """Its half-done run resumes; its scores are those of a sweep without an interruption."""
    flags = ("--data", "tests.toy.Toy", "--accelerator", "cpu", "--max_epochs", 12)
    space = ("--sweep", "{lr: {low: 0.001, high: 0.1, log: true}}", "--trials", 3)
    more = ("--watch.checkpoint_every", 5, "--prune_after", "null")
    words = (*flags, *space, *more, "--parallel", 2)
    launch("src.sweep", *words, "--logs", tmp_path / "whole", timeout=900)

    cut = (*words, "--logs", tmp_path / "cut")
    process = start("src.sweep", *cut)
    until = time.monotonic() + 600
    while not list(tmp_path.glob("cut/trials/*/*/checkpoints/last.ckpt")):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130, done
    assert "trials, which are kept; continue with: python -m src.sweep" in done.stderr
    launch("src.sweep", *cut, timeout=900)

    found = []
    for root in (tmp_path / "whole", tmp_path / "cut"):
        record = json.loads((root / "sweep-toy" / "sweep.json").read_text())
        found.append([(one["settings"], one["scores"]) for one in record["tries"]])
    assert len(found[0]) == 3
    assert found[0] == found[1]
    records = [json.loads(path.read_text()) for path in tmp_path.glob("cut/trials/*/*/run.json")]
    assert max(len(record["sessions"]) for record in records) == 2
