"""Real launches of the documented commands, and what they leave."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]


# what a run that a test called in this process may have left there
NOT_INHERITED = ("LOCAL_RANK", "NODE_RANK", "MASTER_PORT", "PL_GLOBAL_SEED")


class Turn:
    """The right of one worker of pytest-xdist to launch: side by side launches time each other out.

    It is taken by the first launch of a test, and ends with the test. Without xdist there is none.
    """

    def __init__(self) -> None:
        self._lock: TextIO | None = None

    def take(self) -> None:
        """Waits until no other worker launches."""
        session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
        if session is None or self._lock is not None:
            return
        self._lock = (Path(tempfile.gettempdir()) / f"launches-{session}.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def end(self) -> None:
        """Lets the next worker launch."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


TURN = Turn()


def environment(**more: str) -> dict[str, str]:
    """Environment variables of a launch: one thread a process, no trace of earlier runs, more."""
    inherited = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
    return inherited | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"} | more


def port(number: int) -> int:
    """A port that no other worker of pytest-xdist uses: number, plus 100 for each worker before."""
    return number + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def start(
    module: str, *args: object, within: Sequence[str] = (), **more: str
) -> subprocess.Popen[str]:
    """Starts `python -m <module> <args>` in the repository root, in a process group of its own.

    Args:
        module: The module.
        args: Its arguments.
        within: A command that runs it, such as `unshare`.
        more: Environment variables.
    """
    TURN.take()
    return subprocess.Popen(
        [*within, sys.executable, "-m", module, *map(str, args)],
        cwd=ROOT,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(
    process: subprocess.Popen[str], timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Waits for a process; one that hangs is ended with all its children, and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"hung for {timeout} s\n{out[-3000:]}\n{err[-3000:]}") from None

    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def launch(
    module: str, *args: object, code: int = 0, timeout: float = 240, **more: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and checks its exit code."""
    done = finish(start(module, *args, **more), timeout)
    assert done.returncode == code, (
        f"exit code {done.returncode}, not {code}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    )
    return done


def train(logs: Path, *args: object, name: str = "run", code: int = 0, **more: str) -> Path:
    """Trains, and returns the run folder."""
    launch("src.train", "--logs", logs, "--name", name, *args, code=code, timeout=240, **more)
    return only_run(logs / name)


def only_run(folder: Path) -> Path:
    """The one run folder below logs/<name>."""
    runs = sorted(folder.iterdir())
    assert len(runs) == 1, runs
    return runs[0]


def weights(run: Path, which: str = "last") -> dict[str, torch.Tensor]:
    """The weights of a checkpoint, in float64."""
    state = torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]
    return {name: value.double() for name, value in state.items() if value.is_floating_point()}


def furthest(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest relative difference of two sets of weights, |a - b| / |b| for each tensor."""
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[k] - theirs[k]).norm() / theirs[k].norm().clamp(min=1e-12)) for k in ours
    )


def curves(run: Path) -> dict[str, dict[int, float]]:
    """All scalars that a run wrote for TensorBoard: {tag: {step: value}}."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
