"""Processes on this machine, each with its share of the cores or a GPU of its own."""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from src.errors import UserError
from src.processes import Child


class LocalJob:
    """A process on this machine, with a session of its own.

    Args:
        child: The process.
        log: The file that takes what it says.
    """

    def __init__(self, child: Child, log: Path) -> None:
        self.child = child
        self.log = log
        self._words: tuple[str | None, int] | None = None

    def poll(self) -> int | None:
        """Returns its exit code; None while it runs."""
        code = self.child.poll()
        if code is not None and self._words is None:
            # of one that has failed: the line that it would have said on a terminal
            self._words = self.child.last_words()
        return code

    def stop(self) -> None:
        """Asks it to stop as Ctrl-C does, so that it saves its checkpoint first."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends it and the processes that it has started at once."""
        self._signal(signal.SIGKILL)
        self.child.wait()

    def _signal(self, number: int) -> None:
        # a process of a finished group may be gone
        with suppress(ProcessLookupError):
            if self.child.poll() is None:
                os.killpg(self.child.pid, number)

    def explain(self) -> str:
        """Returns its last words, or else the last line of its log."""
        words = self._words[0] if self._words else None
        if words:
            return words.removeprefix("error: ")
        code = self.child.poll()
        if code is not None and code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        return read_last_line(self.log) or f"it ended with exit code {code}"


class LocalExecutor:
    """Starts processes on this machine.

    Args:
        slots: How many run side by side; each has an equal share of the cores.
        gpus: Numbers of this machine's GPUs; none on CPUs.
        gpus_per_job: GPUs that one command takes.

    Raises:
        UserError: There are fewer GPUs than commands side by side take.
    """

    def __init__(
        self, slots: int = 1, gpus: list[int] | None = None, gpus_per_job: int = 1
    ) -> None:
        self.slots = slots
        self.gpus = gpus or []
        self.gpus_per_job = gpus_per_job
        most = len(self.gpus) // gpus_per_job
        if self.gpus and slots > max(most, 1):
            raise UserError(
                f"--parallel {slots} needs {slots * gpus_per_job} GPUs, and this machine has "
                f"{len(self.gpus)}: use --parallel {max(most, 1)}"
            )

    def start(self, command: list[str], log: Path, slot: int) -> LocalJob:
        """Starts a command as a child, which ends soon after this process does."""
        environment = clear_environment(os.environ)
        if "OMP_NUM_THREADS" not in environment:
            environment["OMP_NUM_THREADS"] = str(max(1, count_cores() // self.slots))
        # one command after another may have all of them
        if self.gpus and self.slots > 1:
            first = slot * self.gpus_per_job
            own = self.gpus[first : first + self.gpus_per_job]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, own))
        # a terminal's Ctrl-C reaches this process alone, which then stops its children
        with open(log, "ab") as output:
            child = start_child([sys.executable, "-m", *command], environment, output)
        return LocalJob(child, log)

    def close(self) -> None:
        """Does nothing: children are ended one by one."""


def start_child(
    words: list[str], environment: dict[str, str], output: BinaryIO, folder: Path | None = None
) -> Child:
    """Starts a process whose output goes to a file, in a session of its own.

    Args:
        words: The program and its arguments.
        environment: Its environment variables.
        output: The file.
        folder: The folder that it runs in; this process's unless stated.
    """
    return Child(
        words, environment, stdout=output, stderr=output, start_new_session=True, cwd=folder
    )


def clear_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns environment variables without the cluster's description of its tasks.

    A run would take itself for one of these tasks. The job's number stays, for the run's record.
    """
    dropped = [name for name in environment if name.startswith(("SLURM_", "SUBMITIT_"))]
    kept = environment.keys() - {*dropped} | {"SLURM_JOB_ID"} & environment.keys()
    return {name: environment[name] for name in kept}


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def read_last_line(log: Path) -> str:
    """Returns the last line of a log that says something; "" where none does."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 10_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""
