"""Processes of this machine: shares of cores, GPUs of their own, no trace of another launcher."""

import sys
import time
from pathlib import Path

import pytest

from src.errors import UserError
from src.launch.executors import local
from src.launch.executors.local import LocalExecutor, read_last_line


def read_environment(
    executor: LocalExecutor, slot: int, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> dict[str, str]:
    """Returns the variables that a command is started with."""
    seen: dict[str, str] = {}

    class Recorded:
        pid = 0

    def record(words: list[str], environment: dict[str, str], *rest: object) -> Recorded:
        assert words[:2] == [sys.executable, "-m"]
        seen.update(environment)
        return Recorded()

    monkeypatch.setattr(local, "start_child", record)
    executor.start(["src.train"], folder / "log.txt", slot)
    return seen


def test_commands_side_by_side_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(local, "count_cores", lambda: 16)
    seen = read_environment(LocalExecutor(3), 0, monkeypatch, tmp_path)
    assert seen["OMP_NUM_THREADS"] == "5"
    assert "CUDA_VISIBLE_DEVICES" not in seen
    # a person's own number counts
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert read_environment(LocalExecutor(3), 0, monkeypatch, tmp_path)["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    ("slots", "per_job", "slot", "devices"),
    [(2, 1, 1, "1"), (2, 2, 0, "0,1"), (2, 2, 1, "2,3"), (1, 2, 0, None)],
)
def test_each_slot_has_gpus_of_its_own(
    slots: int,
    per_job: int,
    slot: int,
    devices: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    executor = LocalExecutor(slots, [0, 1, 2, 3], per_job)
    seen = read_environment(executor, slot, monkeypatch, tmp_path)
    assert seen.get("CUDA_VISIBLE_DEVICES") == devices


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(UserError, match="--parallel 3 needs 6 GPUs, and this machine has 4: use "):
        LocalExecutor(3, [0, 1, 2, 3], 2)


def test_a_command_within_a_job_is_none_of_its_tasks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    seen = read_environment(LocalExecutor(), 0, monkeypatch, tmp_path)
    assert "SLURM_NTASKS" not in seen
    assert seen["SLURM_JOB_ID"] == "7"


def test_a_failed_command_says_why(tmp_path: Path) -> None:
    job = LocalExecutor().start(["src.train", "nonsense"], tmp_path / "log.txt", 0)
    until = time.monotonic() + 120
    while job.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert job.poll() == 2
    assert job.explain() == "'nonsense' belongs to no flag; flags are written --key value"


def test_a_command_that_is_killed_says_by_which_signal(tmp_path: Path) -> None:
    job = LocalExecutor().start(["src.train"], tmp_path / "log.txt", 0)
    assert job.poll() is None
    job.kill()
    assert job.poll() == -9
    assert job.explain() == "it was ended by SIGKILL"


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert read_last_line(log) == ""
    log.write_text("first\nerror: the last\n\n")
    assert read_last_line(log) == "the last"
