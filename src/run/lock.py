"""The lock of a run folder: one run trains there at a time, on any number of processes.

The first rank takes the folder for all ranks. A process that is killed leaves its lock behind, and
the next one takes it over.
"""

import atexit
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.errors import UserError
from src.files.typed import read_json


@dataclass(frozen=True)
class Holder:
    """The process that trains in a run folder.

    Args:
        pid: Its number.
        host: The machine that it runs on.
        since: The time when it took the folder.
        started: The time when it began; a later process may get the same number.
        job: The SLURM or torchrun job that it belongs to.
    """

    pid: int
    host: str
    since: str
    started: str
    job: str | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @classmethod
    def this(cls, job: str | None = None) -> "Holder":
        """Returns this process."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        return cls(os.getpid(), socket.gethostname(), now, find_start(os.getpid()), job)

    def is_same(self, other: "Holder") -> bool:
        """Returns whether both are one process."""
        return (self.pid, self.host, self.started) == (other.pid, other.host, other.started)

    def has_ended(self) -> bool:
        """Returns whether the process is known to be gone; False for one of another machine."""
        if self.host != socket.gethostname():
            return False
        start = find_start(self.pid)
        return not start or start != self.started


class Lock:
    """The lock of a folder: a run's, or one of another kind, such as a study's.

    Args:
        folder: The folder.
        kind: Its kind, which names the file and the folder in messages.
    """

    def __init__(self, folder: Path, kind: str = "run") -> None:
        self.folder = folder
        self.kind = kind
        self.path = folder / f"{kind}.lock"

    def holder(self) -> Holder | None:
        """Returns the other process that trains here now; None where none is known to.

        Raises:
            UserError: The lock is damaged.
        """
        holder = self._read()
        if holder is None or holder.has_ended() or holder.is_same(Holder.this()):
            return None
        return holder

    @rank_zero_only
    def take(self, job: str | None = None, again: bool = False) -> None:
        """Takes the folder for this process and its ranks, until :meth:`release` or its end.

        Args:
            job: The job that this process belongs to.
            again: Whether that job was started again: its earlier attempt is over, on whatever
                machine it ran.

        Raises:
            UserError: Another process trains here, or the lock is damaged.
        """
        mine = Holder.this(job)
        with hold_alone(self.folder):
            earlier = self._read()
            holder = self.holder()
            if holder and not (again and job is not None and holder.job == job):
                raise UserError(self._refusal(holder, mine))
            if earlier and not earlier.is_same(mine):
                note = f"{self.folder} was left by {earlier}, which was killed; taking it over"
                print(f"note: {note}", file=sys.stderr, flush=True)
            self.path.unlink(missing_ok=True)
            try:
                with open(self.path, "x") as file:
                    json.dump(asdict(mine), file)
            except FileExistsError:
                # a network file system may not have kept another process out
                raise UserError(
                    f"{self.kind} {self.folder} has just been taken by another process"
                ) from None
            except OSError as error:
                # a full disk leaves half a lock
                self.path.unlink(missing_ok=True)
                raise OSError(error.errno, error.strerror, str(self.path)) from None
        atexit.register(self.release)

    @rank_zero_only
    def release(self) -> None:
        """Gives the folder back if this process has taken it."""
        atexit.unregister(self.release)
        with suppress(OSError, ValueError):
            holder = self._read()
            if holder and holder.is_same(Holder.this()):
                self.path.unlink()

    def _read(self) -> Holder | None:
        try:
            return Holder(
                **read_json(self.path, Holder, "if nothing trains in this folder, remove it")
            )
        except FileNotFoundError:
            return None

    def _refusal(self, holder: Holder, mine: Holder) -> str:
        """Says who trains here, and the way out."""
        way_out = "wait until it has ended, or stop it"
        # whether a process of another machine runs cannot be seen from here
        if holder.host != mine.host:
            way_out += f"; if it has ended already, remove {self.path}"
        doing = "trained" if self.kind == "run" else "run"
        return f"{self.kind} {self.folder} is being {doing} by {holder}: {way_out}"


@contextmanager
def hold_alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out while a lock is read and written, if the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no such lock
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def find_start(pid: int) -> str:
    """Returns the time when a process began, in a unit of the system; "" if there is none."""
    # macOS has no /proc
    if not Path("/proc/self/stat").exists():
        done = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # a zombie has ended
    return "" if words[0] in "ZX" else words[19]
