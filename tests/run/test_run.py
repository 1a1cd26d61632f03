"""The run folder: never overwritten, written whole or not at all, opened without running code."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import src.run.provenance
from src.checkpoint import SafeCheckpointIO, load_checkpoint
from src.files.atomic import write_atomically
from src.files.typed import replace_undefined
from src.run import Run
from src.run.provenance import (
    MOST_DIFF,
    command_line,
    find_versions,
    make_patch,
    read_code_state,
)
from tests.launching import ROOT


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
    assert replace_undefined({"a": True, "b": "nan", "c": None}) == {
        "a": True,
        "b": "nan",
        "c": None,
    }


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
    assert find_versions()["torch"].startswith(torch.__version__.split("+")[0])
    state, _ = read_code_state()
    if (ROOT / ".git").exists():
        assert len(state["commit"]) == 40
        assert state["dirty"] in (True, False)
    assert command_line().startswith(("python -m ", "python -c"))  # -c: a process of pytest's own


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with one commit, whose code is taken for the project's."""
    folder = tmp_path / "repository"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "model.py").write_text("width = 8\ndepth = 2\n")
    (folder / "README.md").write_text("hello\n")
    for words in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"),
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    monkeypatch.setattr(src.run.provenance, "ROOT", folder)
    read_code_state.cache_clear()
    yield folder
    read_code_state.cache_clear()


def begun(tmp_path: Path, run: Run | None = None) -> tuple[Run, Any]:
    """Begins a session as a new process would, and returns what it notes of the code."""
    read_code_state.cache_clear()
    resumed, run = run is not None, run or Run.create(str(tmp_path), "x")
    run.begin("a: 1\n", seed=0, resumed=resumed)
    run.end("finished")
    return run, json.loads(run.record.read_text())["sessions"][-1]["git"]


def test_code_that_is_committed_needs_no_patch(tmp_path: Path, repository: Path) -> None:
    run, git = begun(tmp_path)
    assert (len(git["commit"]), git["dirty"], git["untracked"], git["diff"]) == (
        40,
        False,
        [],
        None,
    )
    assert not list(run.path.glob("*.diff"))


def test_a_run_keeps_the_code_that_no_commit_holds(tmp_path: Path, repository: Path) -> None:
    """Changed, removed and new files: the patch makes the commit what was run."""
    (repository / "src" / "model.py").write_text("width = 16\ndepth = 2\n")
    (repository / "README.md").unlink()
    (repository / "src" / "new.py").write_text("rate = 0.1  # no line break at the end")
    (repository / "src" / "empty.py").write_text("")
    (repository / "notes.txt").write_text("not code\n")
    run, git = begun(tmp_path)
    assert git["dirty"] is True
    assert sorted(git["untracked"]) == ["notes.txt", "src/empty.py", "src/new.py"]
    patch = (run.path / git["diff"]).read_text()
    assert "-width = 8\n+width = 16\n" in patch
    assert "not code" not in patch

    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", repository, copy], check=True)
    subprocess.run(["git", "apply", run.path / "code.diff"], cwd=copy, check=True)
    assert (copy / "src" / "model.py").read_text() == "width = 16\ndepth = 2\n"
    assert (copy / "src" / "new.py").read_text() == "rate = 0.1  # no line break at the end"
    assert not (copy / "README.md").exists()


def test_each_session_names_its_own_code(tmp_path: Path, repository: Path) -> None:
    model = repository / "src" / "model.py"
    model.write_text("width = 16\n")
    run, first = begun(tmp_path)
    _, again = begun(tmp_path, run)
    model.write_text("width = 32\n")
    _, other = begun(tmp_path, run)
    assert [git["diff"] for git in (first, again, other)] == [
        "code.diff",
        "code.diff",
        "code-3.diff",
    ]
    assert "+width = 32" in (run.path / "code-3.diff").read_text()
    assert json.loads(run.record.read_text())["git"] == other


def test_a_long_patch_is_cut_and_says_where(tmp_path: Path, repository: Path) -> None:
    """What lies in src comes first."""
    (repository / "README.md").write_text("x" * 99 + "\n" + "y\n" * MOST_DIFF)
    (repository / "src" / "model.py").write_text("width = 16\n")
    run, git = begun(tmp_path)
    lines = (run.path / git["diff"]).read_text().splitlines()
    assert "+width = 16" in lines
    assert lines[-1].startswith("# cut here: ")
    assert (run.path / git["diff"]).stat().st_size <= MOST_DIFF + 100


def test_large_files_and_files_that_are_no_text_are_named_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a\0b")
    (tmp_path / "b").write_bytes(b"b\n" * 60_000)
    assert make_patch("a", tmp_path / "a") == make_patch("b", tmp_path / "b") == b""


def test_without_git_a_run_begins_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    _, git = begun(tmp_path)
    read_code_state.cache_clear()
    assert git == {"commit": None, "dirty": None, "untracked": [], "diff": None}


def test_a_run_notes_its_data(tmp_path: Path) -> None:
    data = {
        "files": {"train": {"path": "a.csv", "bytes": 9, "sha256": "x"}},
        "rows": 3,
        "columns": ["a"],
    }
    run = Run.create(str(tmp_path), "x")
    run.begin("a: 1\n", seed=0, resumed=False, data=data)
    assert json.loads(run.record.read_text())["data"] == data
    run.begin("a: 1\n", seed=0, resumed=True)  # it is the same data, or the run would not go on
    assert json.loads(run.record.read_text())["data"] == data
    run.end("finished")


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
    thread = threading.Thread(
        target=writer.save_checkpoint, args=({"a": torch.ones(1)}, tmp_path / "sub" / "a.ckpt")
    )
    thread.start()
    thread.join()
    assert load_checkpoint(tmp_path / "sub" / "a.ckpt")["a"].item() == 1
    writer.remove_checkpoint(tmp_path / "sub" / "a.ckpt")
    assert list((tmp_path / "sub").iterdir()) == []
