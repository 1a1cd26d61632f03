"""The run folder: what a run leaves behind, and how to open it again.

logs/<name>/<date-time>/
    config.yaml       the resolved configuration
    run.json          command, versions, git state, seed, duration, peak memory, how it ended
    schema.json       what must be known of the training data to read new rows, where the data module needs that
    metrics.json      validation and test metrics of the best checkpoint
    checkpoints/      best.ckpt (by val/score) and last.ckpt (to resume from)
    events.*          TensorBoard
"""

import json
import math
import platform
import resource
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.checkpoint import load_checkpoint, write_atomically
from src.words import load_as_written

PACKAGES = ("torch", "lightning", "torchmetrics", "jsonargparse", "numpy", "pandas", "scikit-learn")


class Run:
    """A run folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.json"
        self.schema = self.path / "schema.json"
        self.best = self.path / "checkpoints" / "best.ckpt"
        self.last = self.path / "checkpoints" / "last.ckpt"

    @classmethod
    def create(cls, root: str, name: str) -> "Run":
        """Makes a fresh folder logs/<name>/<date-time>; ranks other than the first make none, and learn its name later."""
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        for attempt in range(1, 1000):
            path = Path(root) / name / (stamp if attempt == 1 else f"{stamp}_{attempt}")
            try:
                if getattr(rank_zero_only, "rank", 0) in (0, None):
                    path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise ValueError(f"--logs {root}: no run folder can be made there: {error.strerror}") from None
            return cls(path)
        raise AssertionError("a thousand runs in one second")

    @classmethod
    def of_job(cls, root: str, name: str, job: str) -> "Run | None":
        """The latest run that a job has begun with this command line; one job may train several, one after another."""
        for record in sorted((Path(root) / name).glob("*/run.json"), reverse=True):
            with suppress(OSError, ValueError):
                sessions = json.loads(record.read_text())["sessions"]
                if any((session.get("job"), session["command"]) == (job, command()) for session in sessions):
                    return cls(record.parent)
        return None

    @rank_zero_only
    def discard(self) -> None:
        """Removes a fresh folder in which nothing has been written."""
        for folder in (self.path, self.path.parent):
            with suppress(OSError):
                folder.rmdir()

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Opens what an earlier run left.

        Raises:
            ValueError: There is no run in this folder.
        """
        run = cls(path)
        if run.path.is_file():
            raise ValueError(f"{path} is a file; name the run folder that it is in")
        if not run.path.is_dir():
            raise ValueError(f"run folder {path} does not exist")
        if not run.config.is_file():
            raise ValueError(f"{path} is no run folder: it holds no config.yaml")
        return run

    def checkpoint(self, which: str | None = None) -> Path:
        """The path of a checkpoint, once it is known that it can be opened.

        Args:
            which: best or last; None: the best, or the last of a run that did not validate.

        Raises:
            ValueError: The run has none, or it is damaged.
        """
        if which not in ("best", "last", None):
            raise ValueError(f"--checkpoint is '{which}'; it must be best or last")
        path = self.last if which == "last" or (which is None and self.last.exists() and not self.best.exists()) else self.best
        if not path.exists():
            raise ValueError(f"run {self.path} has no checkpoint {path.relative_to(self.path)}")
        checkpoint = load_checkpoint(path, mmap=True)
        if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
            raise ValueError(f"checkpoint {path} is not from a training run")
        return path

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises:
            ValueError: The file was damaged.
        """
        try:
            config = load_as_written(self.config.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            config = None
        if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in ("data", "model", "trainer")):
            raise ValueError(f"{self.config} is damaged: it is no configuration that a run has written")
        return config

    @rank_zero_only
    def write(self, path: Path, content: dict[str, Any]) -> None:
        """Writes JSON, whole or not at all; a number that is not defined becomes null, since JSON knows no NaN."""
        text = json.dumps(defined(content), indent=2, allow_nan=False) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))

    @rank_zero_only
    def begin(self, config: str, seed: int, resumed: bool, job: str | None = None) -> None:
        """Notes what is about to run; a resumed run may have other limits and devices, which the next resume starts from."""
        try:
            earlier = json.loads(self.record.read_text()) if resumed and self.record.is_file() else {}
        except ValueError:
            raise ValueError(f"{self.record} is damaged; remove it, and the run will resume without its history") from None
        write_atomically(self.config, lambda file: file.write(config.encode()))
        sessions = [*earlier.get("sessions", []), {"started": now(), "command": command(), "job": job, "status": "running"}]
        record = {"seed": seed, "python": platform.python_version(), "platform": platform.platform()}
        self.write(self.record, record | {"versions": versions(), "git": git_state(), "sessions": sessions})
        self.started = time.monotonic()

    @rank_zero_only
    def end(self, status: str, **notes: Any) -> None:
        """Notes how it ended."""
        record = json.loads(self.record.read_text())
        record["sessions"][-1] |= {
            "status": status,
            "seconds": round(time.monotonic() - self.started, 2),
            "peak_memory_bytes": peak_memory(),
            **notes,
        }
        self.write(self.record, record)


def defined(content: Any) -> Any:
    """Nested values with None for each number that is NaN or infinite."""
    if isinstance(content, dict):
        return {key: defined(value) for key, value in content.items()}
    if isinstance(content, list):
        return [defined(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def now() -> str:
    """Date and time, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def command() -> str:
    """The command line as one would type it."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    words = ["python", "-m", module.name, *sys.argv[1:]] if module else ["python", *sys.argv]
    return shlex.join(words)


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any]:
    """The commit of the code, and whether the tree has changes that no commit holds."""

    def git(*words: str) -> str | None:
        try:
            here = Path(__file__).parent
            done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def peak_memory() -> dict[str, int]:
    """The most memory this process has held: on the host, and on its GPU where it has one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak
