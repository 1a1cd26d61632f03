"""A rank that dies ends the run on all ranks, soon and with its error visible."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.launch import finish, start
from tests.toy import At, KillAt, RaiseAt

TOY = ("--data", "tests.toy.Toy", "--max_epochs", 400, "--model.encoder.width", 16, "--watch.figures_every", 0)


@pytest.mark.parametrize(
    ("callback", "visible", "rank"),
    [
        (RaiseAt, "this rank broke", 0),
        (KillAt, "another process of this run", 1),
        pytest.param(RaiseAt, "this rank broke", 1, marks=pytest.mark.slow),
        pytest.param(KillAt, "another process of this run", 0, marks=pytest.mark.slow),
    ],
)
def test_a_dead_rank_ends_the_run(tmp_path: Path, callback: type[At], visible: str, rank: int) -> None:
    marker = tmp_path / "dead"
    process = start("src.train", "--logs", tmp_path, "--name", "x", *TOY, "--devices", 2, *callback.flags(20, marker, rank))
    done = finish(process, timeout=120)
    ended = time.time()
    assert done.returncode not in (0, None)
    assert visible in done.stderr
    assert ended - marker.stat().st_mtime < 30  # seconds, on a busy machine; a hang would be minutes
    with pytest.raises(ProcessLookupError):  # noqa: PT012  # nobody of its process group is left
        for _ in range(20):
            os.killpg(process.pid, 0)
            time.sleep(0.5)
        os.killpg(process.pid, signal.SIGKILL)
