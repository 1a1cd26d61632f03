"""A rank that dies ends the run on all ranks, soon and with its error visible."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from src.batch import Batch
from src.cli.entrypoint import explain
from src.data import Rows, Split
from src.errors import UserError
from tests.launching import finish, start
from tests.toy import At, KillAt, RaiseAt, StopAt, Toy

TOY = (
    "--data",
    "tests.toy.Toy",
    "--max_epochs",
    400,
    "--model.encoder.width",
    16,
    "--watch.figures_every",
    0,
)


@pytest.mark.parametrize(
    ("callback", "visible", "rank"),
    [
        pytest.param(RaiseAt, "this rank broke", 0, marks=pytest.mark.slow),
        (KillAt, "another process of this run", 1),
        pytest.param(RaiseAt, "this rank broke", 1, marks=pytest.mark.slow),
        pytest.param(KillAt, "another process of this run", 0, marks=pytest.mark.slow),
    ],
)
def test_a_dead_rank_ends_the_run(
    tmp_path: Path, callback: type[At], visible: str, rank: int
) -> None:
    marker = tmp_path / "dead"
    process = start(
        "src.train",
        "--logs",
        tmp_path,
        "--name",
        "x",
        *TOY,
        "--devices",
        2,
        *callback.flags(20, marker, rank),
    )
    done = finish(process, timeout=120)
    ended = time.time()
    assert done.returncode not in (0, None)
    assert visible in done.stderr
    # seconds, on a busy machine; a hang would be minutes
    assert ended - marker.stat().st_mtime < 30
    assert nobody_is_left(process)


def nobody_is_left(process: subprocess.Popen[str]) -> bool:
    """Tells whether its process group is empty some seconds after its end; ends who is left."""
    try:
        for _ in range(20):
            os.killpg(process.pid, 0)
            time.sleep(0.5)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    return False


class DiesInStart(Toy):
    """The second process kills itself, or the first one, before the two have met.

    Args:
        first: Whether it kills the first one.
        marker: A file that says that this is done.
        settings: Settings of the base class.
    """

    def __init__(self, first: bool, marker: str, **settings: Any) -> None:
        super().__init__(**settings)
        if os.environ.get("LOCAL_RANK") == "1":
            Path(marker).touch()
            os.kill(os.getppid() if first else os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_a_death_before_the_processes_have_met_ends_the_others(tmp_path: Path, first: bool) -> None:
    marker = tmp_path / "dead"
    data = (
        "--data",
        "tests.integration.test_failures.DiesInStart",
        "--data.first",
        first,
        "--data.marker",
        marker,
    )
    process = start("src.train", "--logs", tmp_path, "--name", "x", *data, *TOY[2:], "--devices", 2)
    done = finish(process, timeout=200)
    assert time.time() - marker.stat().st_mtime < 60  # the timeout of the strategy is 600
    errors = done.stderr.splitlines()
    assert len(errors) == 1, done.stderr
    assert ("the first process has ended" if first else "process 1 was ended by SIGKILL") in errors[
        0
    ]
    assert nobody_is_left(process)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "says"), [(0, "another process of this run"), (1, "process 1 is stopped")]
)
def test_a_rank_that_is_stopped_ends_the_run(tmp_path: Path, rank: int, says: str) -> None:
    words = (
        "--devices",
        2,
        "--strategy",
        "ddp",
        "--strategy.timeout",
        10,
        *StopAt.flags(20, tmp_path / "stopped", rank),
    )
    process = start("src.train", "--logs", tmp_path, "--name", "x", *TOY, *words)
    done = finish(process, timeout=200)
    assert time.time() - (tmp_path / "stopped").stat().st_mtime < 60
    errors = done.stderr.splitlines()
    assert len(errors) == 1, done.stderr
    assert says in errors[0]
    assert nobody_is_left(process)


class OutOfMemoryAt(At):
    """Memory runs out on one rank."""

    def act(self, module: L.LightningModule) -> None:
        raise MemoryError


@pytest.mark.slow
def test_memory_that_runs_out_on_a_rank_is_one_line(tmp_path: Path) -> None:
    key = "--trainer.callbacks"
    at = (
        key,
        "tests.integration.test_failures.OutOfMemoryAt",
        *OutOfMemoryAt.flags(20, tmp_path / "out", 1)[2:],
    )
    process = start("src.train", "--logs", tmp_path, "--name", "x", *TOY, "--devices", 2, *at)
    done = finish(process, timeout=200)
    assert done.returncode == 2
    assert "error on rank 1: the memory of this machine has run out" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert nobody_is_left(process)


FROM_A_WORKER = """Caught {kind} in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "loader.py", line 7, in __getitem__
    {code}
    ^^^^^^^^^^^^^^
{kind}: {words}"""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "the memory of this machine has run out: lower --batch_size"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0"),
            "the memory of the GPU has run out",
        ),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 40 bytes"
            ),
            "out, 40 bytes were asked for",
        ),
        (
            RuntimeError("DataLoader timed out after 540.0 seconds"),
            "a process that prepares batches does not answer",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "a process that prepares batches has ended",
        ),
        (
            UserError(
                FROM_A_WORKER.format(
                    kind="UserError", code="raise UserError(words)", words="row 5 is broken"
                )
            ),
            "row 5 is broken",
        ),
        (
            ValueError(
                FROM_A_WORKER.format(kind="ValueError", code="int(word)", words="invalid literal")
            ),
            None,
        ),
        (RuntimeError("a bug"), None),
    ],
)
def test_what_a_machine_lacks_is_one_line(error: Exception, says: str | None) -> None:
    found = explain(error)
    assert (found is None) if says is None else (found is not None and says in found)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_line(tmp_path: Path) -> None:
    data = ("--data", "tests.integration.test_failures.LosesWorkers", "--data.num_workers", 1)
    process = start("src.train", "--logs", tmp_path, "--name", "x", *data, *TOY[2:])
    done = finish(process, timeout=200)
    assert done.returncode == 2
    assert "a process that prepares batches has ended" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert nobody_is_left(process)


class LosesWorkers(Toy):
    """Its batches are prepared by processes that are killed as they do it."""

    def split(self, name: Split) -> Rows:
        rows = super().split(name)
        return KilledRows(rows.inputs, rows.targets)


class KilledRows(Rows):
    """Ends the process that asks for a batch, where that is one for batches alone."""

    def __getitem__(self, ids: torch.Tensor) -> Batch:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(ids)
