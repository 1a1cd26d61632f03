"""Who trains in a run folder: one run at a time, whatever the number of its processes.

The first rank takes the folder for all ranks. A process that is killed leaves its lock behind; the
next one takes it over.
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
        since: When it took the folder.
        started: When it began; a later process may get the same number.
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
        return cls(os.getpid(), socket.gethostname(), now, started(os.getpid()), job)

    def is_same(self, other: "Holder") -> bool:
        """Returns whether both are one process."""
        return (self.pid, self.host, self.started) == (other.pid, other.host, other.started)

    def has_ended(self) -> bool:
        """Returns whether the process is known to be gone; of another machine's nobody here can tell."""
        if self.host != socket.gethostname():
            return False
        there = started(self.pid)
        return not there or there != self.started


class Lock:
    """The lock of a run folder.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "run.lock"

    def holder(self) -> Holder | None:
        """Returns the other process that trains here now, as far as one can tell; None where there is none.

        Raises:
            UserError: The lock is damaged.
        """
        holder = self._read()
        return (
            None
            if holder is None or holder.has_ended() or holder.is_same(Holder.this())
            else holder
        )

    @rank_zero_only
    def take(self, job: str | None = None, again: bool = False) -> None:
        """Takes the folder for this process, and for the ranks that follow it, until :meth:`release` or its end.

        Args:
            job: The job that this process belongs to.
            again: Whether that job was started again: its earlier attempt is over, on whatever
                machine it ran.

        Raises:
            UserError: Another process trains here, or the lock is damaged.
        """
        mine = Holder.this(job)
        with alone(self.folder):
            earlier, holder = self._read(), self.holder()
            if holder and not (again and job is not None and holder.job == job):
                raise UserError(self._refusal(holder, mine))
            if earlier and not earlier.is_same(mine):
                note = f"note: {self.folder} was left by {earlier}, which has ended without a word; taking it over"
                print(note, file=sys.stderr, flush=True)
            self.path.unlink(missing_ok=True)
            try:
                with open(self.path, "x") as file:
                    json.dump(asdict(mine), file)
            except FileExistsError:  # on a file system where nothing has kept another one out
                raise UserError(
                    f"run {self.folder} has just been taken by another process"
                ) from None
            except OSError as error:  # a full disk, which leaves half a lock
                self.path.unlink(missing_ok=True)
                raise OSError(error.errno, error.strerror, str(self.path)) from None
        atexit.register(self.release)

    @rank_zero_only
    def release(self) -> None:
        """Gives the folder back, where this process has taken it."""
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
        """Returns who trains here, and the way out."""
        way_out = "wait until it has ended, or stop it"
        if holder.host != mine.host:  # whether it lives cannot be seen from here
            way_out += f"; if it has ended already, remove {self.path}"
        return f"run {self.folder} is being trained by {holder}: {way_out}"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out while a lock is read and written, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no such lock
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def started(pid: int) -> str:
    """Returns when a process began, as the system counts; empty where there is no such process."""
    if not Path("/proc/self/stat").exists():  # macOS
        done = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] in "ZX" else words[19]  # a zombie has ended
