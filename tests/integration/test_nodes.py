"""Several machines: the same run, its end when one is lost, and its resume by the same job."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.namespaces import ADDRESSES, Hosts, two_hosts
from tests.launching import (
    ROOT,
    environment,
    finish,
    furthest,
    launch,
    only_run,
    port,
    read_json,
    start,
    train,
    weights,
)
from tests.toy import DROPOUT, KillAt, SignalAt, SleepAt, StopAt

# 14 steps an epoch; dropout, so that the random numbers matter
TOY = (
    *DROPOUT,
    *("--max_epochs", 3),
    *("--watch.checkpoint_every", 4, "--watch.figures_every", 0, "--accelerator", "cpu"),
)
LOST = (
    "another process of this run has ended or does not answer, and this one ends with it: "
    "Timed out waiting 10000ms"
)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    try:
        with two_hosts() as hosts:
            yield hosts
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")


def on_both(
    hosts: Hosts, *args: object, apart: float = 0.0, restarts: int = 0
) -> list[subprocess.Popen[str]]:
    """Starts src.train on each host by torchrun, the second one first, some seconds apart."""
    started = []
    for rank in (1, 0):
        words: tuple[object, ...] = (
            "--nnodes",
            2,
            "--nproc_per_node",
            1,
            "--node_rank",
            rank,
            "--max-restarts",
            restarts,
        )
        words = (
            *words,
            "--master_addr",
            ADDRESSES[0],
            "--master_port",
            port(29730),
            "-m",
            "src.train",
            "--",
            *args,
        )
        started.append(hosts.start(rank, "torch.distributed.run", *words))
        time.sleep(apart if rank else 0)
    return started


def ended(processes: list[subprocess.Popen[str]], timeout: float = 90) -> list[Any]:
    try:
        return [finish(process, timeout) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def on_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("one"), *TOY)


@pytest.fixture(scope="module")
def on_two(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = tmp_path_factory.mktemp("two")
    for done in ended(on_both(hosts, "--logs", logs, "--name", "run", *TOY, apart=3)):
        assert done.returncode == 0, done.stderr
    return only_run(logs / "run")


@pytest.fixture(scope="module")
def in_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes on one machine, uninterrupted."""
    return train(tmp_path_factory.mktemp("in_two"), *TOY, "--devices", 2)


def sessions(run: Path) -> list[str]:
    """How each attempt ended; all are of one job."""
    found = read_json(run / "run.json")["sessions"]
    assert len({session["job"] for session in found}) == 1
    assert len({session["command"] for session in found}) == 1
    return [session["status"] for session in found]


@pytest.mark.slow
def test_two_hosts_are_as_one(on_one: Path, on_two: Path) -> None:
    assert furthest(weights(on_two), weights(on_one)) < 1e-5


@pytest.mark.slow
def test_two_hosts_without_a_launcher(hosts: Hosts, on_one: Path, tmp_path: Path) -> None:
    """A command on each, with the variables that Lightning reads; only the first makes a folder."""
    words = ("src.train", "--logs", tmp_path, "--name", "run", *TOY, "--num_nodes", 2)
    where = {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(port(29731))}
    for done in ended([hosts.start(host, *words, **where, NODE_RANK=str(host)) for host in (1, 0)]):
        assert done.returncode == 0, done.stderr
    assert furthest(weights(only_run(tmp_path / "run")), weights(on_one)) < 1e-5


@pytest.mark.slow
def test_a_cut_wire_ends_both_hosts(hosts: Hosts, on_two: Path, tmp_path: Path) -> None:
    """Nobody closes a connection: only time tells. With the wire mended the run goes on exactly."""
    marker = tmp_path / "marker"
    pause = (*SleepAt.flags(18, marker), "--trainer.callbacks.seconds", 3)
    processes = on_both(
        hosts,
        "--logs",
        tmp_path,
        "--name",
        "run",
        *TOY,
        *pause,
        "--strategy",
        "ddp",
        "--strategy.timeout",
        10,
    )
    while not marker.exists():
        time.sleep(0.1)
        assert processes[0].poll() is None
    hosts.cut(1)
    start = time.time()
    try:
        for done in ended(processes):
            assert done.returncode == 1
            assert LOST in done.stderr
        assert time.time() - start < 45  # 3 s of sleep, 10 s of waiting, the end of torchrun
        assert not hosts.processes(0)
        assert not hosts.processes(1)
    finally:
        hosts.mend(1)
    run = only_run(tmp_path / "run")
    for done in ended(on_both(hosts, "--resume", run)):
        assert done.returncode == 0, done.stderr
    assert furthest(weights(run), weights(on_two)) == 0
    assert [s["status"] for s in read_json(run / "run.json")["sessions"]] == ["failed", "finished"]


@pytest.mark.slow
def test_two_hosts_start_again(hosts: Hosts, on_two: Path, tmp_path: Path) -> None:
    """torchrun restarts the rank that is killed on one host, and its peer on the other."""
    kill = KillAt.flags(18, tmp_path / "marker", rank=1)
    for done in ended(on_both(hosts, "--logs", tmp_path, "--name", "run", *TOY, *kill, restarts=1)):
        assert done.returncode == 0, done.stderr
    run = only_run(tmp_path / "run")
    assert furthest(weights(run), weights(on_two)) == 0
    assert sessions(run)[1:] == ["finished"]


@pytest.mark.slow
@pytest.mark.parametrize("step", [17, 2])
def test_torchrun_starts_a_killed_run_again(in_two: Path, tmp_path: Path, step: int) -> None:
    """The same command goes on in the first folder, even if that has no checkpoint yet."""
    words = (
        "--nproc_per_node",
        2,
        "--master_port",
        port(29732),
        "--max-restarts",
        2,
        "-m",
        "src.train",
        "--",
    )
    kill = KillAt.flags(step, tmp_path / "marker", rank=1)
    launch("torch.distributed.run", *words, "--logs", tmp_path, "--name", "run", *TOY, *kill)
    run = only_run(tmp_path / "run")
    assert furthest(weights(run), weights(in_two)) == 0
    assert read_json(run / "metrics.json") == read_json(in_two / "metrics.json")
    first, second = sessions(run)
    assert first in ("running", "failed")  # the first rank may live long enough to note it
    assert second == "finished"


SRUN = """#!/bin/bash
# two tasks, each on a node of its own; the exit code is the highest one, as srun's is
while [[ $1 == --* ]]; do shift; done
for rank in 0 1; do
  SLURM_PROCID=$rank SLURM_LOCALID=0 SLURM_NODEID=$rank "$@" & pids[$rank]=$!
done
highest=0
for pid in "${pids[@]}"; do wait "$pid"; code=$?; ((code > highest)) && highest=$code; done
exit $highest
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$(dirname "$0")/scontrol.txt"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "code"), [(SignalAt, 130), (KillAt, 137)], ids=["asked", "killed"]
)
def test_slurm_requeues(in_two: Path, tmp_path: Path, stop: type[KillAt], code: int) -> None:
    """The job script, with srun and scontrol of our own; SLURM itself requeues a killed job."""
    for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    slurm = {
        "JOB_ID": "4733",
        "JOB_NAME": "multitask",
        "NTASKS": "2",
        "NTASKS_PER_NODE": "1",
        "NNODES": "2",
        "NODELIST": "127.0.0.1",
    }
    variables = {f"SLURM_{key}": value for key, value in slurm.items()}
    variables |= {"MASTER_PORT": str(port(29733)), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = [
        *TOY,
        "--logs",
        tmp_path / "logs",
        "--name",
        "run",
        *stop.flags(18, tmp_path / "marker"),
    ]

    def job(attempt: int) -> int:
        count = {"SLURM_RESTART_COUNT": str(attempt)} if attempt else {}
        command = ["bash", "configs/slurm/train.sbatch", *map(str, words)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(**variables, **count), check=False, timeout=120
        )
        return done.returncode

    assert job(0) == code
    run = only_run(tmp_path / "logs" / "run")
    asked = tmp_path / "scontrol.txt"
    assert (asked.read_text() if asked.is_file() else "") == (
        "requeue 4733\n" if code == 130 else ""
    )
    assert job(1) == 0
    assert only_run(tmp_path / "logs" / "run") == run
    assert furthest(weights(run), weights(in_two)) == 0
    assert sessions(run) == ["interrupted" if code == 130 else "running", "finished"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["none", "torchrun"])
def test_a_rank_that_hangs(tmp_path: Path, launcher: str) -> None:
    """It is stopped, closes nothing, and does not hear that it is to end."""
    words = (
        "--logs",
        tmp_path,
        "--name",
        "run",
        *TOY,
        *StopAt.flags(18, tmp_path / "marker", rank=1),
    )
    words += ("--strategy", "ddp", "--strategy.timeout", 10)
    if launcher == "none":
        process = start("src.train", *words, "--devices", 2)
    else:
        here = ("--nproc_per_node", 2, "--master_port", port(29734))
        process = start("torch.distributed.run", *here, "-m", "src.train", "--", *words)
    done = finish(process, timeout=150)
    assert done.returncode == 1
    assert LOST in done.stderr
    waited = time.time() - (tmp_path / "marker").stat().st_mtime
    assert waited < (
        40 if launcher == "none" else 75
    )  # torchrun itself waits for 30 s before it kills
    with pytest.raises(ProcessLookupError):  # nobody of its process group is left
        os.killpg(process.pid, 0)
