"""A command on another machine: what a SLURM job or a Ray task does there.

The study asks it to stop by a file beside its log, since signals do not travel between machines.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from src.launch.executors.local import clear_environment, start_child
from src.processes import Child

REPOSITORY = Path(__file__).resolve().parents[3]
PATIENCE = 20.0  # seconds for a run to save when its study has gone


@dataclass(frozen=True)
class Outcome:
    """How a command has ended.

    Attributes:
        code: Its exit code.
        words: The line that it has said of its failure; None where it has said none.
    """

    code: int
    words: str | None


@dataclass(frozen=True)
class RemoteCommand:
    """A command that runs where a cluster calls this object.

    Attributes:
        command: The module and its flags.
        log: The file that takes what it says.
        host: The machine of the study.
        pid: The process of the study; a command on the same machine stops when that has ended.
    """

    command: list[str]
    log: Path
    host: str
    pid: int

    @classmethod
    def make(cls, command: list[str], log: Path) -> "RemoteCommand":
        """Returns the command, with this process as that of the study."""
        name_stop(log).unlink(missing_ok=True)
        return cls(command, log.absolute(), socket.gethostname(), os.getpid())

    def __call__(self) -> Outcome:
        """Runs the command in the repository until it ends, or is asked to stop and has saved."""
        words = [sys.executable, "-m", *self.command]
        with listen() as heard:
            with open(self.log, "ab") as output, ignore_warning():
                environment = clear_environment(os.environ)
                child = start_child(words, environment, output, REPOSITORY)
            code = self._wait(child, heard)

        told = child.last_words()
        said = told[0] if told else None
        if heard and said is None:
            said = f"the cluster has ended its job ({signal.Signals(heard[0]).name})"
        return Outcome(code, said)

    def _wait(self, child: Child, heard: list[int]) -> int:
        """Waits for the end of the command, and hands on that it is to stop."""
        asked = False
        killed_at: float | None = None
        while (code := child.poll()) is None:
            number = self._find_reason(heard)
            if number is not None and not asked:
                asked = True
                send(child, number)

            # no study is left to end a command that does not answer
            if self._is_alone():
                killed_at = killed_at or time.monotonic() + PATIENCE
                if time.monotonic() > killed_at:
                    send(child, signal.SIGKILL)
            time.sleep(0.2)
        return code

    def _find_reason(self, heard: list[int]) -> int | None:
        """Returns the signal to hand on; None while the command is to run.

        A second SIGINT would end a run at once. A second SIGTERM does nothing, and the cluster may
        have sent the first to all processes of the job.
        """
        if name_stop(self.log).exists() or signal.SIGINT in heard[:1]:
            return signal.SIGINT
        return signal.SIGTERM if heard or self._is_alone() else None

    def _is_alone(self) -> bool:
        """Returns whether the study is known to have ended."""
        if socket.gethostname() != self.host:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


def ask_to_stop(log: Path) -> None:
    """Asks the command with this log to stop, on whatever machine it runs."""
    name_stop(log).touch()


def name_stop(log: Path) -> Path:
    """Returns the file that asks a command to stop."""
    return log.with_name(f"{log.name}.stop")


def send(child: Child, number: int) -> None:
    """Sends a signal to a command and the processes that it has started."""
    # they may have ended meanwhile
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


@contextmanager
def listen() -> Iterator[list[int]]:
    """Notes the signals by which a cluster announces the end of a job; yields their numbers."""
    heard: list[int] = []
    previous = {}
    # no other thread may listen
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            previous[number] = signal.signal(number, lambda number, frame: heard.append(number))
    try:
        yield heard
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def ignore_warning() -> Iterator[None]:
    """Lets a child that is started meanwhile ignore SIGUSR2 for good.

    SLURM sends it to all processes of a job before the time limit, and it would end a run that
    could save.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, previous)
