"""Real launches of the documented commands, and what they leave."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    """One thread per process, and nothing that an earlier run left in this process."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("LOCAL_RANK", "NODE_RANK", "MASTER_PORT", "PL_GLOBAL_SEED")
    }
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"} | more


def port(number: int) -> int:
    """A port of this process of pytest's own: where several run side by side each has another."""
    return number + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def start(
    module: str, *args: object, within: Sequence[str] = (), **more: str
) -> subprocess.Popen[str]:
    """Starts `python -m <module> <args>` in the repository root, in a process group of its own; another command may run it."""
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
    """Waits; a process that hangs is ended with all its children, and fails the test."""
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
    """Largest relative difference, |a - b| / |b| per tensor."""
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[k] - theirs[k]).norm() / theirs[k].norm().clamp(min=1e-12)) for k in ours
    )


def curves(run: Path) -> dict[str, dict[int, float]]:
    """All scalars of a run's TensorBoard: {tag: {step: value}}."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
