"""python -m src.compare: mistakes in a line, a study of real runs, an interruption, a crash."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from src.cli.comparison import Comparison
from src.cli.flags import split_flags
from src.cli.study_call import read_call
from src.run.lock import Holder, find_start
from tests.cli.calling import call
from tests.launching import finish, launch, start

TOY = {
    "data": "tests.toy.Toy",
    "model.encoder.width": 8,
    "trainer.max_epochs": 3,
}


def write_study(folder: Path, **content: Any) -> Path:
    given = {
        "name": "mine",
        "settings": TOY,
        "variants": {"UPGrad": {"model.balancer": "UPGrad"}},
        "baselines": ["StaticWeights"],
        "seeds": 2,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(given | content))
    return path


def read_record(root: Path, name: str = "mine") -> dict[str, Any]:
    record: dict[str, Any] = json.loads((root / name / "study.json").read_text())
    return record


def find_scores(root: Path) -> dict[tuple[str, int], float]:
    """Returns {(row, seed): test score}."""
    record = read_record(root)
    found = {}
    for row in record["rows"]:
        for replicate in row["replicates"]:
            key = next(iter(replicate["trials"].values()))
            run = root / record["trials"][key]["run"]
            metrics = json.loads((run / "metrics.json").read_text())
            found[row["name"], replicate["seed"]] = metrics["test"]["test/score"]
    return found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"variants": {"a": {"model.balancer": "UPGrat"}}},
            "mine.yaml: row 'a': model.balancer: unknown class 'UPGrat'; did you mean 'UPGrad'?",
        ),
        ({"variants": {"a": {"model.balncer": "UPGrad"}}}, "row 'a': "),
        ({"variants": {"a": {"model.sharing": "MMoE", "model.balancer": "UPGrad"}}}, "row 'a': "),
        ({"settings": {"data": "tests.toy.Toy", "data.rows": 3}}, "data.rows"),
        ({"folds": 3}, "Toy has one split of its own and no folds"),
        ({"seeds": 0}, "seeds is 0; it must be at least 1"),
        ({"seeds": 1}, "one seed gives no interval"),
        ({"tuning": {"grid": {"lrr": [1]}}}, "row 'StaticWeights': "),
        ({"base": "nowhere.yaml"}, "nowhere.yaml: No such file"),
    ],
)
def test_a_mistake_is_found_before_any_trial(
    tmp_path: Path, content: dict[str, Any], words: str
) -> None:
    path = write_study(tmp_path, **content)
    ended = call("compare", "--config", path, "--logs", tmp_path / "logs")
    assert ended.code == 2
    assert words in ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--config names one study"),
        (("--config", "nowhere.yaml"), "study nowhere.yaml: No such file or directory"),
        (("--parallel", "0"), "--parallel is '0'"),
        (("--executor", "slrm"), "--executor is 'slrm'"),
        (("--seed", "3"), "--seed_everything is the study's own: see seeds"),
        (("--fast_dev_run",), "--trainer.fast_dev_run belongs to one call of train"),
        (("--data.fold", "1"), "--data.fold is the study's own: see folds"),
        (("--print_config",), "--print_config belongs to one call of train"),
        (("--cluster", "[1]"), "--cluster [1]: a mapping of settings belongs there"),
    ],
)
def test_a_flag_that_cannot_be_meant_is_a_line(
    tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    config = () if "--config" in flags or not flags else ("--config", write_study(tmp_path))
    ended = call("compare", *config, *flags, "--logs", tmp_path / "logs")
    assert ended.code == 2
    assert words in ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err


def test_the_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    (root / "mine").mkdir(parents=True)
    (root / "mine" / "study.yaml").write_text("base_hash: abc\nbase_words: [--lr, '1']\n")
    ended = call("compare", "--config", write_study(tmp_path), "--logs", root)
    assert ended.code == 2
    assert "is of another study: its base is --lr 1, or has other values by now" in ended.err

    (root / "mine" / "study.yaml").unlink()
    (root / "mine" / "thesis.txt").write_text("mine")
    ended = call("compare", "--config", write_study(tmp_path), "--logs", root)
    assert ended.code == 2
    assert "is there already and is no study" in ended.err


def test_a_study_that_another_process_runs_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    (root / "mine").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        holder = Holder.this().__dict__ | {"pid": other.pid}
        holder["started"] = find_start(other.pid)
        (root / "mine" / "study.lock").write_text(json.dumps(holder))
        path = write_study(tmp_path)
        # the folder is of this study, and only locked
        plan = call("compare", "--config", path, "--logs", tmp_path / "other", "--plan")
        assert plan.code == 0
        (root / "mine" / "study.yaml").write_text(f"base_hash: {find_base_hash(path, tmp_path)}\n")
        ended = call("compare", "--config", path, "--logs", root)
        other.kill()
    assert ended.code == 2
    assert f"study {root / 'mine'} is being run by process {other.pid}" in ended.err


def find_base_hash(path: Path, folder: Path) -> str:
    call_ = read_call(split_flags(["--config", str(path), "--logs", str(folder)]))
    return Comparison(call_).base_hash


@pytest.mark.slow
def test_a_study_of_real_runs_and_what_it_leaves(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    path = write_study(
        tmp_path,
        baselines=["single-task", "StaticWeights", "tuned weights"],
        weights=2,
        tuning={"grid": {"lr": [0.001, 0.01]}},
    )
    launch("src.compare", "--config", path, "--logs", root, "--parallel", 2, timeout=900)
    record = read_record(root)
    assert record["finished"]
    assert {trial["status"] for trial in record["trials"].values()} == {"finished"}
    assert set(find_scores(root)) == {
        (row, seed)
        for row in ("single-task", "StaticWeights", "tuned weights", "UPGrad")
        for seed in (0, 1)
    }
    assert (root / "mine" / "report.html").is_file()
    # every trial can be opened as any run can
    trial = next(iter(record["trials"].values()))
    launch("src.evaluate", "--run", root / trial["run"], "--split", "val")

    # run again: nothing trains, and the report is the same
    before = {path: path.stat().st_mtime_ns for path in root.glob("trials/*/*/run.json")}
    report = (root / "mine" / "report.md").read_text()
    launch("src.compare", "--config", path, "--logs", root, timeout=240)
    assert {path: path.stat().st_mtime_ns for path in root.glob("trials/*/*/run.json")} == before
    assert (root / "mine" / "report.md").read_text() == report


@pytest.mark.slow
def test_two_processes_a_trial_give_the_same_table(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    launch("src.compare", "--config", path, "--logs", tmp_path / "one", timeout=600)
    words = ("--config", path, "--devices", 2, "--strategy", "ddp")
    launch("src.compare", *words, "--logs", tmp_path / "two", timeout=900)
    one = find_scores(tmp_path / "one")
    two = find_scores(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, score in one.items():
        assert two[key] == pytest.approx(score, rel=1e-5)


def list_processes(folder: Path) -> list[int]:
    """Returns the processes whose command line names a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def wait_until(holds: Any, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.mark.slow
def test_an_interrupted_study_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    settings = TOY | {"trainer.max_epochs": 60, "watch.checkpoint_every": 20}
    path = write_study(tmp_path, settings=settings, variants={})
    root = tmp_path / "broken"
    process = start("src.compare", "--config", path, "--logs", root)
    wait_until(lambda: list(root.glob("trials/*/*/checkpoints/last.ckpt")))
    os.kill(process.pid, signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130, done.stderr
    assert "which are kept; continue with: python -m src.compare --config" in done.stderr
    assert not list_processes(root)
    assert not read_record(root)["finished"]

    launch("src.compare", "--config", path, "--logs", root, timeout=600)
    launch("src.compare", "--config", path, "--logs", tmp_path / "whole", timeout=600)
    ours = sorted((path.parts[-4], path) for path in root.glob("trials/*/*/checkpoints/last.ckpt"))
    theirs = sorted(
        (path.parts[-4], path)
        for path in (tmp_path / "whole").glob("trials/*/*/checkpoints/last.ckpt")
    )
    assert [key for key, _ in ours] == [key for key, _ in theirs]
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        mine = torch.load(a, weights_only=True)["state_dict"]
        other = torch.load(b, weights_only=True)["state_dict"]
        assert all(torch.equal(mine[name], other[name]) for name in other)


@pytest.mark.slow
def test_a_study_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    path = write_study(tmp_path, settings=TOY | {"trainer.max_epochs": 2000})
    root = tmp_path / "logs"
    words = ("--config", path, "--logs", root, "--parallel", 2)
    process = start("src.compare", *words)
    wait_until(lambda: len(list(root.glob("trials/*/*/progress.json"))) == 2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not list_processes(root), 30)
