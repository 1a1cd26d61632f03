"""The interface between the loop of a study and the place where its processes run."""

from pathlib import Path
from typing import Protocol


class Job(Protocol):
    """One process that was started, here or elsewhere."""

    def poll(self) -> int | None:
        """Returns its exit code; None while it runs or waits for a machine."""

    def stop(self) -> None:
        """Asks it to stop as Ctrl-C does, so that a run saves its checkpoint first."""

    def kill(self) -> None:
        """Ends it at once."""

    def explain(self) -> str:
        """Returns in one line why it has failed, as far as that is known."""


class Executor(Protocol):
    """Starts commands of this project, each as a process of its own.

    Attributes:
        slots: How many run side by side.
    """

    slots: int

    def start(self, command: list[str], log: Path, slot: int) -> Job:
        """Starts a command.

        Args:
            command: The module and its flags, such as ["src.train", "--max_epochs", "3"].
            log: The file that takes what it says; its folder exists.
            slot: Which of the processes that run side by side it is, from 0.
        """

    def close(self) -> None:
        """Gives back whatever the executor holds, once no job of it runs."""
