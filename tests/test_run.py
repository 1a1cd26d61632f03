"""The run folder: never overwritten, written whole or not at all, opened without running code."""

import json
import os
import threading
from pathlib import Path

import pytest
import torch

from src.checkpoint import SafeCheckpointIO, load_checkpoint, write_atomically
from src.run import Run, command, defined, git_state, versions
from tests.launch import ROOT


def test_folders_never_overwrite_each_other(tmp_path: Path) -> None:
    runs = [Run.create(str(tmp_path), "x") for _ in range(5)]
    assert len({run.path for run in runs}) == 5
    assert all(run.path.is_dir() and run.path.parent == tmp_path / "x" for run in runs)


def test_a_fresh_folder_can_be_discarded_and_a_used_one_not(tmp_path: Path) -> None:
    run = Run.create(str(tmp_path), "x")
    run.discard()
    assert list(tmp_path.iterdir()) == []
    run = Run.create(str(tmp_path), "x")
    run.metrics.write_text("{}")
    run.discard()
    assert run.metrics.is_file()


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def half(file) -> None:
        file.write(b"new")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.123").write_bytes(b"half")
    SafeCheckpointIO().save_checkpoint({"a": torch.ones(2)}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.equal(load_checkpoint(tmp_path / "last.ckpt")["a"], torch.ones(2))


def test_numbers_that_are_not_defined_are_null(tmp_path: Path) -> None:
    run = Run.create(str(tmp_path), "x")
    run.write(run.metrics, {"test": {"a": float("nan"), "b": 0.5, "c": [float("-inf"), 1]}})
    assert json.loads(run.metrics.read_text(), parse_constant=lambda word: pytest.fail(word)) == {
        "test": {"a": None, "b": 0.5, "c": [None, 1]}
    }
    assert defined({"a": True, "b": "nan", "c": None}) == {"a": True, "b": "nan", "c": None}


def test_the_record_of_sessions(tmp_path: Path) -> None:
    run = Run.create(str(tmp_path), "x")
    run.begin("a: 1\n", seed=3, resumed=False)
    run.end("interrupted")
    run.begin("a: 2\n", seed=3, resumed=True)
    run.end("finished", steps=7)
    record = json.loads(run.record.read_text())
    assert [session["status"] for session in record["sessions"]] == ["interrupted", "finished"]
    assert record["sessions"][1]["steps"] == 7
    assert record["sessions"][1]["peak_memory_bytes"]["host"] > 2**20
    assert record["seed"] == 3
    assert run.config.read_text() == "a: 2\n"


def test_a_job_finds_its_latest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job may train several, by other command lines."""
    runs = {}
    for seed in ("1", "2", "1"):
        monkeypatch.setattr("sys.argv", ["train", "--seed", seed])
        runs[seed] = Run.create(str(tmp_path), "x")
        runs[seed].begin("a: 1\n", seed=0, resumed=False, job="slurm 17")
    for seed, run in runs.items():
        monkeypatch.setattr("sys.argv", ["train", "--seed", seed])
        found = Run.of_job(str(tmp_path), "x", "slurm 17")
        assert found is not None
        assert found.path == run.path
    assert Run.of_job(str(tmp_path), "x", "slurm 18") is None
    assert Run.of_job(str(tmp_path), "y", "slurm 17") is None
    runs["2"].record.write_text("damaged")
    assert Run.of_job(str(tmp_path), "x", "slurm 17") is None


def test_what_made_the_numbers() -> None:
    assert versions()["torch"].startswith(torch.__version__.split("+")[0])
    state = git_state()
    if (ROOT / ".git").exists():
        assert len(state["commit"]) == 40
        assert state["dirty"] in (True, False)
    assert command().startswith("python -m ")


class Code:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_checkpoint_with_code_is_not_run(tmp_path: Path, mmap: bool) -> None:
    torch.save({"code": Code(tmp_path / "executed")}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match="holds code, which is never run"):
        load_checkpoint(tmp_path / "bad.ckpt", mmap=mmap)
    assert not (tmp_path / "executed").exists()


def test_checkpoints_are_written_from_any_thread(tmp_path: Path) -> None:
    writer = SafeCheckpointIO()
    thread = threading.Thread(target=writer.save_checkpoint, args=({"a": torch.ones(1)}, tmp_path / "sub" / "a.ckpt"))
    thread.start()
    thread.join()
    assert load_checkpoint(tmp_path / "sub" / "a.ckpt")["a"].item() == 1
    writer.remove_checkpoint(tmp_path / "sub" / "a.ckpt")
    assert list((tmp_path / "sub").iterdir()) == []
