"""One run at a time trains in a folder, whatever becomes of the others."""

import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.run import Run
from src.run.lock import Holder, Lock, find_start
from tests.cli.calling import call, refused

TOY = (
    "--data",
    "tests.toy.Toy",
    "--model.encoder.width",
    8,
    "--watch.figures_every",
    0,
    "--accelerator",
    "cpu",
)


def other() -> subprocess.Popen[bytes]:
    """A process that lives until it is killed."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def held_by(folder: Path, pid: int, **changed: str | None) -> Holder:
    """Writes the lock of another process."""
    holder = Holder(pid, socket.gethostname(), "2026-11-30T04:00:00+00:00", find_start(pid))
    holder = replace(holder, **changed)  # type: ignore[arg-type]
    Lock(folder).path.write_text(json.dumps(asdict(holder)))
    return holder


@pytest.fixture
def living():
    process = other()
    yield process
    process.kill()
    process.wait()


def test_a_lock_names_this_process_and_goes_with_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    assert lock.holder() is None
    lock.take("slurm 7")
    content = json.loads(lock.path.read_text())
    assert (content["pid"], content["host"], content["job"]) == (
        os.getpid(),
        socket.gethostname(),
        "slurm 7",
    )
    assert content["started"] == find_start(os.getpid()) != ""
    assert lock.holder() is None  # no other process
    lock.take()  # it is ours already
    lock.release()
    assert not lock.path.exists()
    lock.release()


def test_a_second_process_is_refused_and_takes_nothing_away(tmp_path: Path, living) -> None:
    holder = held_by(tmp_path, living.pid)
    before = Lock(tmp_path).path.read_text()
    with pytest.raises(
        ValueError,
        match=re.escape(f"process {living.pid} on {holder.host} since {holder.since}: wait"),
    ):
        Lock(tmp_path).take()
    Lock(tmp_path).release()
    assert Lock(tmp_path).path.read_text() == before
    assert Lock(tmp_path).holder() == holder


@pytest.mark.parametrize("end", ["killed", "a zombie", "another process with its number"])
def test_the_lock_of_a_dead_process_is_taken_over(
    tmp_path: Path, living, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    held_by(tmp_path, living.pid, **({"started": "1"} if "another" in end else {}))
    if "another" not in end:
        living.send_signal(signal.SIGKILL)
        os.waitid(
            os.P_PID, living.pid, os.WEXITED | os.WNOWAIT
        )  # nobody has asked how it ended: a zombie
    if end == "killed":
        living.wait()
    assert Lock(tmp_path).holder() is None
    Lock(tmp_path).take()
    assert json.loads(Lock(tmp_path).path.read_text())["pid"] == os.getpid()
    says = capsys.readouterr().err
    assert says.startswith(f"note: {tmp_path} was left by process {living.pid} on ")
    assert says.count("\n") == 1
    Lock(tmp_path).release()


def test_of_another_machine_nobody_can_tell(tmp_path: Path) -> None:
    held_by(tmp_path, 1, host="node17", job="slurm 5")
    with pytest.raises(
        ValueError, match=r"process 1 on node17 since .*if it has ended already, remove .*run\.lock"
    ):
        Lock(tmp_path).take("slurm 5")
    with pytest.raises(ValueError, match="node17"):
        Lock(tmp_path).take("slurm 6", again=True)
    Lock(tmp_path).take(
        "slurm 5", again=True
    )  # the same job, started again: its first attempt is over
    Lock(tmp_path).release()


def test_a_damaged_lock_names_the_way_out(tmp_path: Path) -> None:
    Lock(tmp_path).path.write_text("{")
    with pytest.raises(
        ValueError, match=r"run\.lock is damaged; if nothing trains in this folder, remove it"
    ):
        Lock(tmp_path).take()


def test_a_full_disk_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match=r"No space left on device: .*run\.lock"):
        Lock(tmp_path).take()
    assert not Lock(tmp_path).path.exists()


def test_other_ranks_follow_the_first(tmp_path: Path, living) -> None:
    before = held_by(tmp_path, living.pid)
    with mock.patch.object(rank_zero_only, "rank", 1):
        Lock(tmp_path).take()
        Lock(tmp_path).release()
    assert Lock(tmp_path).holder() == before


def _take(folder: Path, start, wins) -> None:
    start.wait()
    try:
        Lock(folder).take()
    except ValueError:
        wins.put(0)
    else:
        wins.put(1)
    start.wait()  # alive until all have tried


def test_of_many_at_once_one_takes_over(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held_by(tmp_path, 2**22 + 1)
    start, wins = context.Barrier(6), context.Queue()
    processes = [context.Process(target=_take, args=(tmp_path, start, wins)) for _ in range(6)]
    for process in processes:
        process.start()
    assert sum(wins.get(timeout=60) for _ in processes) == 1
    for process in processes:
        process.join()


@pytest.fixture
def trained(tmp_path: Path) -> Run:
    assert call("train", *TOY, "--max_epochs", 1, "--logs", tmp_path / "logs").code == 0
    return Run(next((tmp_path / "logs").glob("*/*")))


def test_a_run_that_ends_gives_its_folder_back(trained: Run) -> None:
    assert not trained.lock.path.exists()


def test_two_resumes_in_one_folder(trained: Run, living) -> None:
    """The second is refused before it changes a file; a plan, and verbs that only read, are not."""
    held_by(trained.path, living.pid)
    before = {path: path.read_bytes() for path in trained.path.rglob("*") if path.is_file()}
    refused(
        call("train", "--resume", trained.path, "--max_epochs", 2),
        ["being trained by", f"process {living.pid} on", "since"],
    )
    assert {path: path.read_bytes() for path in trained.path.rglob("*") if path.is_file()} == before
    assert call("train", "--resume", trained.path, "--max_epochs", 2, "--plan", "true").code == 0
    evaluated = call("evaluate", "--run", trained.path, "--accelerator", "cpu")
    assert evaluated.code == 0
    assert (
        f"note: run {trained.path} is still being trained by process {living.pid}" in evaluated.err
    )


def test_a_refused_resume_gives_the_folder_back(trained: Run) -> None:
    refused(call("train", "--resume", trained.path, "--max_epochs", 0), ["max_epochs is 0"])
    assert not trained.lock.path.exists()


def test_a_killed_run_is_resumed_and_called_killed(trained: Run) -> None:
    record = json.loads(trained.record.read_text())
    record["sessions"][-1]["status"] = "running"
    trained.record.write_text(json.dumps(record))
    held_by(trained.path, 2**22 + 1)  # above all numbers that Linux gives
    resumed = call("train", "--resume", trained.path, "--max_epochs", 2)
    assert resumed.code == 0
    assert f"note: {trained.path} was left by process {2**22 + 1} on" in resumed.err
    assert [
        session["status"] for session in json.loads(trained.record.read_text())["sessions"]
    ] == ["killed", "finished"]
    assert not trained.lock.path.exists()
