"""The run folder: what a run leaves behind, and how to open it again.

logs/<name>/<date-time>/ config.yaml       the resolved configuration run.json          command,
    versions, git state, data, seed, duration, peak memory, how it ended code.diff         what of
    the code no commit holds; code-2.diff for a second session on other code run.lock          who
    trains here now: process, host, since when schema.json       what must be known of the training
    data to read new rows, where the data module needs that metrics.json      validation and test
    metrics of the best checkpoint checkpoints/      best.ckpt (by val/score) and last.ckpt (to
    resume from) events.*          TensorBoard
"""

import json
import math
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.checkpoint import load_checkpoint
from src.errors import UserError
from src.files.atomic import write_atomically, write_in_place
from src.files.typed import mismatch, read_json
from src.files.yaml12 import load_as_written
from src.run.contents import Checkpoint, Record, Results
from src.run.lock import Lock

PACKAGES = ("torch", "lightning", "torchmetrics", "jsonargparse", "numpy", "pandas", "scikit-learn")
ROOT = Path(__file__).parents[2]
MOST_DIFF = 1_000_000  # bytes of a run's code.diff
MOST_NEW = 100_000  # bytes of a file in it that git does not know yet
MOST_NAMES = 100  # such files that run.json names


class Run:
    """A run folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.json"
        self.schema = self.path / "schema.json"
        self.lock = Lock(self.path)
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
                raise UserError(
                    f"--logs {root}: no run folder can be made there: {error.strerror}"
                ) from None
            return cls(path)
        raise AssertionError("a thousand runs in one second")

    @classmethod
    def of_job(cls, root: str, name: str, job: str) -> "Run | None":
        """The latest run that a job has begun with this command line; one job may train several, one after another."""
        for record in sorted((Path(root) / name).glob("*/run.json"), reverse=True):
            with suppress(OSError, ValueError):
                sessions = read_json(record, Record)["sessions"]
                if any(
                    (session.get("job"), session["command"]) == (job, command())
                    for session in sessions
                ):
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
            UserError: There is no run in this folder.
        """
        run = cls(path)
        if run.path.is_file():
            raise UserError(f"{path} is a file; name the run folder that it is in")
        if not run.path.is_dir():
            raise UserError(f"run folder {path} does not exist")
        if not run.config.is_file():
            raise UserError(f"{path} is no run folder: it holds no config.yaml")
        return run

    def checkpoint(self, which: str | None = None) -> Path:
        """The path of a checkpoint, once it is known that it can be opened.

        Args:
            which: best or last; None: the best, or the last of a run that did not validate.

        Raises:
            UserError: The run has none, or it is damaged.
        """
        if which not in ("best", "last", None):
            raise UserError(f"--checkpoint is '{which}'; it must be best or last")
        path = (
            self.last
            if which == "last" or (which is None and self.last.exists() and not self.best.exists())
            else self.best
        )
        if not path.exists():
            raise UserError(f"run {self.path} has no checkpoint {path.relative_to(self.path)}")
        if which is None and self.has_lost_best():
            raise UserError(
                f"{self.best} is gone, the weights of the best validation: restore it, or add --checkpoint last for others"
            )
        if not self.schema.is_file() and self._knows_its_files():
            raise UserError(
                f"{self.schema} is gone, which says what the run's rows are: restore it, or train anew"
            )
        self._read(path)
        return path

    def _read(self, path: Path) -> Any:
        """Opens a checkpoint of this run, its large tensors not yet.

        Raises:
            UserError: It is damaged, or of something else.
        """
        checkpoint = load_checkpoint(path, mmap=True, whole=False)
        if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
            raise UserError(f"checkpoint {path} is not from a training run")
        if (wrong := mismatch(checkpoint, Checkpoint)) is not None:
            raise UserError(f"checkpoint {path} is damaged: {wrong}")
        return checkpoint

    def has_lost_best(self) -> bool:
        """Whether a validation was the best, as the last checkpoint says, but its weights are gone."""
        if self.best.exists() or not self.last.exists():
            return False
        selection = self._read(self.last)["callbacks"].get("selection")
        return isinstance(selection, dict) and bool(selection.get("best"))

    def check_results(self) -> None:
        """Looks at what a run that goes on will compare itself with at its end.

        Raises:
            UserError: The best weights or the metrics are gone or damaged.
        """
        self._read_record()
        self.read_results()
        if self.best.exists():
            self._read(self.best)
        elif self.has_lost_best():
            raise UserError(
                f"{self.best} is gone, the weights of the best validation so far: restore it, or train anew; "
                "the last weights are for evaluate --checkpoint last"
            )

    def _knows_its_files(self) -> bool:
        """Whether the record has a fingerprint of files; a damaged one is looked at elsewhere."""
        with suppress(OSError, ValueError):
            return bool((self._read_record().get("data") or {}).get("files"))
        return False

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises:
            UserError: The file was damaged.
        """
        try:
            config = load_as_written(self.config.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            config = None
        if not isinstance(config, dict) or not all(
            isinstance(config.get(key), dict) for key in ("data", "model", "trainer")
        ):
            raise UserError(
                f"{self.config} is damaged: it is no configuration that a run has written"
            )
        return config

    def read_results(self) -> Results | None:
        """The metrics that the run has written down; None where it has none.

        Raises:
            UserError: The file was damaged.
        """
        if not self.metrics.is_file():
            return None
        return cast(
            Results, read_json(self.metrics, Results, "remove it, and the run will test anew")
        )

    @rank_zero_only
    def write(self, path: Path, content: dict[str, Any]) -> None:
        """Writes JSON, whole or not at all; a number that is not defined becomes null, since JSON knows no NaN."""
        write_atomically(path, lambda file: file.write(as_json(content)))

    def _read_record(self) -> dict[str, Any]:
        """The record of earlier sessions; empty where there is none.

        Raises:
            UserError: It was damaged.
        """
        if not self.record.is_file():
            return {}
        return cast(
            dict[str, Any],
            read_json(
                self.record, Record, "remove it, and the run will resume without its history"
            ),
        )

    @rank_zero_only
    def begin(
        self,
        config: str,
        seed: int,
        resumed: bool,
        job: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Notes what is about to run; a resumed run may have other limits and devices, which the next resume starts from.

        Args:
            config: The resolved configuration as YAML.
            seed: Its seed.
            resumed: Whether the run goes on.
            job: The job that this process belongs to.
            data: The fingerprint of the run's data; None keeps what is noted already.

        Raises:
            UserError: Another process trains here, or the record is damaged.
        """
        self.lock.take(job)
        try:
            earlier = self._read_record() if resumed else {}
        except ValueError:
            self.lock.release()
            raise
        write_atomically(self.config, lambda file: file.write(config.encode()))

        sessions = earlier.get("sessions", [])
        for session in sessions:
            if session["status"] == "running":  # no process does that any more: the lock is ours
                session["status"] = "killed"
        git = self._note_code(len(sessions) + 1)
        sessions.append(
            {"started": now(), "command": command(), "job": job, "git": git, "status": "running"}
        )

        record = {
            "seed": seed,
            "python": platform.python_version(),
            "platform": platform.platform(),
        }
        record |= {
            "versions": versions(),
            "git": git,
            "data": earlier.get("data") if data is None else data,
        }
        self.write(self.record, record | {"sessions": sessions})
        self.started = time.monotonic()

    def _note_code(self, session: int) -> dict[str, Any]:
        """Keeps what no commit holds of the code; sessions on the same code have one file."""
        state, diff = code_state()
        if not diff:
            return state | {"diff": None}
        kept = diff
        if len(diff) > MOST_DIFF:
            kept = diff[: diff.rfind(b"\n", 0, MOST_DIFF) + 1]
            kept += f"# cut here: {len(kept):,} of {len(diff):,} bytes\n".encode()
        for path in sorted(self.path.glob("code*.diff")):
            if path.is_file() and path.read_bytes() == kept:
                return state | {"diff": path.name}
        path = self.path / ("code.diff" if session == 1 else f"code-{session}.diff")
        write_atomically(path, lambda file: file.write(kept))
        return state | {"diff": path.name}

    @rank_zero_only
    def end(self, status: str, **notes: Any) -> None:
        """Notes how it ended, and gives the folder back.

        Raises:
            OSError: The record cannot be written.
        """
        try:
            self._note_end(status, notes)
        finally:
            self.lock.release()

    def fail(self, error: BaseException) -> None:
        """Notes that an error has ended it, as far as the system lets it: it is this error that is to be said."""
        with suppress(OSError):
            self.end("failed", error=" ".join(str(error).split()) or type(error).__name__)

    def _note_end(self, status: str, notes: dict[str, Any]) -> None:
        record = json.loads(self.record.read_text())
        record["sessions"][-1] |= {
            "status": status,
            "seconds": round(time.monotonic() - self.started, 2),
            "peak_memory_bytes": peak_memory(),
            **notes,
        }
        try:
            self.write(self.record, record)
        except OSError:
            # a full disk has no room for another file, but the last block of this one has some
            write_in_place(self.record, as_json(record))


def as_json(content: dict[str, Any]) -> bytes:
    """Returns content as it stands in a file."""
    return (json.dumps(defined(content), indent=2, allow_nan=False) + "\n").encode()


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


def git(*words: str) -> bytes | None:
    """Returns what git says of this project; None where it says nothing, such as outside a repository."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@cache  # the code of a process is what it imported when it began
def code_state() -> tuple[dict[str, Any], bytes]:
    """Returns the commit of the code and whether it is all, and what no commit holds as a patch for ``git apply``.

    The patch has all changes to files that git knows, those of src and configs first, and then the
    new files there.
    """
    commit, status = (
        git("rev-parse", "HEAD"),
        git("status", "--porcelain", "-z", "--no-renames", "."),
    )
    lines = [line.decode(errors="replace") for line in (status or b"").split(b"\0") if line]
    state: dict[str, Any] = {
        "commit": None if commit is None else commit.decode().strip(),
        "dirty": None if status is None else bool(lines),
        "untracked": [line[3:] for line in lines if line.startswith("??")][:MOST_NAMES],
    }
    if commit is None or not lines:
        return state, b""
    changed = ("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--")
    diff = (git(*changed, "src", "configs") or b"") + (
        git(*changed, ".", ":!src", ":!configs") or b""
    )
    top = Path(os.fsdecode(git("rev-parse", "--show-toplevel") or b"").strip())
    names = (
        git(
            "ls-files",
            "--others",
            "--exclude-standard",
            "--full-name",
            "-z",
            "--",
            "src",
            "configs",
        )
        or b""
    )
    for name in sorted(os.fsdecode(name) for name in names.split(b"\0") if name):
        with suppress(OSError):
            diff += as_patch(name, top / name)
    return state, diff


def as_patch(name: str, path: Path) -> bytes:
    """Returns a new file as a part of a patch; none for a large one, or one that is no text."""
    if path.stat().st_size > MOST_NEW or not path.is_file():
        return b""
    content = path.read_bytes()
    if not content or b"\0" in content:
        return b""
    lines = content.split(b"\n")
    whole = lines[-1] == b""
    lines = lines[:-1] if whole else lines
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n"
    body = b"".join(b"+" + line + b"\n" for line in lines)
    return os.fsencode(head) + body + (b"" if whole else b"\\ No newline at end of file\n")


def peak_memory() -> dict[str, int]:
    """The most memory this process has held: on the host, and on its GPU where it has one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak
