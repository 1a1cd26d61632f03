"""Executors start, watch, stop and end commands alike, wherever these run."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from src.errors import UserError
from src.launch.executors import Executor, Job, make_executor
from src.launch.executors.local import clear_environment
from src.launch.executors.remote import Outcome, RemoteCommand
from tests.launch.executors import fake_slurm
from tests.launch.executors.fake_ray import FakeRay
from tests.launching import ROOT

TOY = "tests.launch.executors.toy_command"
PLACES = ("local", "submitit", "slurm", "ray")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRay:
    fake = FakeRay(tmp_path / "tasks")
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name, value in fake_slurm.install(scripts).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def make(ray: FakeRay, slurm: None, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes executors, and closes them at the end."""
    made: list[Executor] = []

    def make(place: str, **settings: Any) -> Executor:
        name = {"submitit": "slurm"}.get(place, place)
        if place == "submitit":
            settings["cluster"] = "local"
        made.append(make_executor(name, 2, tmp_path / "jobs", settings))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def wait(job: Job, seconds: float = 60.0) -> int:
    until = time.monotonic() + seconds
    while (code := job.poll()) is None:
        assert time.monotonic() < until, "still runs"
        time.sleep(0.05)
    return code


def wait_for(path: Path, seconds: float = 60.0) -> str:
    until = time.monotonic() + seconds
    while not path.exists() or not path.read_text():
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.05)
    return path.read_text()


def has_ended(pid: int, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("place", PLACES)
def test_commands_end_and_fail(place: str, make: Callable[..., Any], tmp_path: Path) -> None:
    executor = make(place)
    commands = (["say", "two words"], ["fail"], ["break"])
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    jobs = []
    for slot, (words, log) in enumerate(zip(commands, logs, strict=True)):
        jobs.append(executor.start([TOY, *words], log, slot % 2))

    assert [wait(job) for job in jobs] == [0, 2, 3]
    assert logs[0].read_text().splitlines()[0] == "two words"
    assert jobs[1].explain() == "column 'age' is not in the table"
    assert jobs[2].explain() == "half of a line"


@pytest.mark.parametrize("place", PLACES)
def test_a_command_saves_before_it_stops(
    place: str, make: Callable[..., Any], tmp_path: Path
) -> None:
    job = make(place).start([TOY, "wait", str(tmp_path / "pid")], tmp_path / "log", 0)
    pid = int(wait_for(tmp_path / "pid"))
    assert job.poll() is None
    job.stop()
    job.stop()
    assert wait(job) == 130
    assert (tmp_path / "pid.saved").read_text() == "SIGINT"
    assert has_ended(pid)


@pytest.mark.parametrize("place", ["local", "slurm", "ray"])
def test_a_command_that_does_not_hear_is_killed(
    place: str, make: Callable[..., Any], tmp_path: Path
) -> None:
    job = make(place).start([TOY, "hang", str(tmp_path / "pid")], tmp_path / "log", 0)
    pid = int(wait_for(tmp_path / "pid"))
    job.kill()
    assert has_ended(pid)


@pytest.mark.parametrize("place", ["submitit", "slurm"])
def test_closing_leaves_no_job(place: str, make: Callable[..., Any], tmp_path: Path) -> None:
    executor = make(place)
    executor.start([TOY, "wait", str(tmp_path / "pid")], tmp_path / "log", 0)
    pid = int(wait_for(tmp_path / "pid"))
    executor.close()
    assert has_ended(pid)


def test_a_job_that_waits_is_cancelled(make: Callable[..., Any], tmp_path: Path) -> None:
    job = make("slurm", partition="later").start([TOY, "say", "a"], tmp_path / "log", 0)
    assert job.poll() is None
    job.stop()
    job.latency = 0.0
    assert wait(job) == 1
    assert "was lost: CANCELLED" in job.explain()


def test_a_job_that_is_preempted_saves(make: Callable[..., Any], tmp_path: Path) -> None:
    """SLURM tells all processes of a job, and the run as well; the run hears of it once."""
    job = make("slurm").start([TOY, "wait", str(tmp_path / "pid")], tmp_path / "log", 0)
    pid = int(wait_for(tmp_path / "pid"))
    os.kill(pid, signal.SIGUSR2)
    os.killpg(int(job.job.job_id), signal.SIGUSR2)
    assert wait(job) == 130
    assert (tmp_path / "pid.saved").read_text() == "SIGTERM"
    assert job.explain() == "the cluster has ended its job (SIGUSR2)"


def test_a_job_that_is_lost(make: Callable[..., Any], tmp_path: Path) -> None:
    job = make("slurm").start([TOY, "wait", str(tmp_path / "pid")], tmp_path / "log", 0)
    pid = int(wait_for(tmp_path / "pid"))
    os.killpg(int(job.job.job_id), signal.SIGKILL)
    job.latency = 0.0
    assert wait(job) == 1
    assert job.explain() == f"its job {job.job.job_id} was lost: NODE_FAIL"
    assert has_ended(pid)


def test_settings_of_jobs(make: Callable[..., Any], tmp_path: Path) -> None:
    settings = {"partition": "gpu", "timeout_min": 240, "gpus_per_node": 1, "setup": ["true"]}
    job = make("slurm", **settings).start([TOY, "say", "a"], tmp_path / "log", 0)
    text = job.job.paths.submission_file.read_text()
    for line in ("partition=gpu", "time=240", "gpus-per-node=1", "no-requeue"):
        assert f"#SBATCH --{line}\n" in text
    assert text.index("\ntrue\n") < text.index(f"\ncd {ROOT}\n") < text.index("\nsrun ")
    assert wait(job) == 0
    # the run must not take itself for a task of SLURM
    assert f"job {job.job.job_id} tasks None\n" in (tmp_path / "log").read_text()


def test_a_day_is_the_time_of_a_job(make: Callable[..., Any]) -> None:
    assert make("slurm").executor.parameters["time"] == 24 * 60


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"partitoin": "gpu"}, "unknown setting 'partitoin' of SLURM; did you mean 'partition'?"),
        ({"timeout_min": "long"}, "timeout_min"),
        ({"nodes": 2}, "nodes cannot be set for SLURM"),
        ({"cluster": "pbs"}, "cluster is 'pbs'"),
    ],
)
def test_wrong_settings_of_slurm(
    settings: dict[str, Any], says: str, make: Callable[..., Any]
) -> None:
    with pytest.raises(UserError, match=says) as error:
        make("slurm", **settings)
    assert "\n" not in str(error.value)


def test_a_job_is_refused(make: Callable[..., Any], tmp_path: Path) -> None:
    executor = make("slurm", partition="refused")
    with pytest.raises(UserError, match=r"sbatch has refused a job: .*invalid partition"):
        executor.start([TOY, "say", "a"], tmp_path / "log", 0)


def test_a_machine_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="srun"):
        make_executor("slurm", 1, tmp_path, {})


def test_settings_of_ray(ray: FakeRay, make: Callable[..., Any]) -> None:
    executor = make("ray", address="head:6379", num_gpus=1)
    assert ray.options == {"max_retries": 0, "num_gpus": 1}
    assert ray.began == {
        "address": "head:6379",
        "runtime_env": {"env_vars": {"PYTHONPATH": str(ROOT)}},
    }
    executor.close()
    assert ray.began is None
    with pytest.raises(UserError, match="unknown setting 'gpus' of Ray; did you mean 'num_gpus'"):
        make("ray", gpus=1)
    with pytest.raises(UserError, match="no Ray cluster at nowhere:1"):
        make("ray", address="nowhere:1")


def test_a_task_that_is_lost(ray: FakeRay, make: Callable[..., Any], tmp_path: Path) -> None:
    job = make("ray").start([TOY, "wait", str(tmp_path / "pid")], tmp_path / "log", 0)
    pid = int(wait_for(tmp_path / "pid"))
    ray.cancel(job.task, force=True)
    assert wait(job) == 1
    assert job.explain() == (
        "its task was lost: WorkerCrashedError: "
        "The worker died unexpectedly while executing this task."
    )
    assert has_ended(pid)


@pytest.mark.parametrize(
    ("name", "slots", "settings", "says"),
    [
        ("slrum", 1, {}, "--executor is 'slrum'; did you mean 'slurm'"),
        ("local", 0, {}, "--parallel is 0; it must be 1 or more"),
        ("local", 1, {"partition": "gpu"}, "the setting 'partition' is of a cluster"),
    ],
)
def test_wrong_words(
    name: str, slots: int, settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        make_executor(name, slots, tmp_path, settings)


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", r"'ray\[train\]'")])
def test_a_package_is_missing(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package if name == "slurm" else "ray", None)
    with pytest.raises(UserError, match=f"--executor {name} needs .*: pip install {package}"):
        make_executor(name, 1, tmp_path, {})


def test_a_study_that_was_killed_leaves_no_command(tmp_path: Path) -> None:
    """A job of another machine runs on; one of this machine saves and stops."""
    study = subprocess.Popen(["sleep", "100"])

    def end_study() -> None:
        wait_for(tmp_path / "pid")
        study.kill()
        study.wait()

    end = threading.Thread(target=end_study)
    end.start()
    here = RemoteCommand.make([TOY, "wait", str(tmp_path / "pid")], tmp_path / "log")
    assert dataclasses.replace(here, pid=study.pid)() == Outcome(130, None)
    end.join()
    assert (tmp_path / "pid.saved").read_text() == "SIGTERM"

    there = RemoteCommand.make([TOY, "say", "a"], tmp_path / "log")
    assert dataclasses.replace(there, host="elsewhere", pid=study.pid)() == Outcome(0, None)


def test_a_command_is_no_task_of_the_cluster() -> None:
    found = clear_environment(
        {"SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SUBMITIT_EXECUTOR": "slurm", "HOME": "/h"}
    )
    assert found == {"SLURM_JOB_ID": "7", "HOME": "/h"}
    assert clear_environment({"SLURM_NTASKS": "2"}) == {}
