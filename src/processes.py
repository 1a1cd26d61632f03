"""The processes of a run on one machine: none outlives the others, and one of them says why.

A process that starts others is their parent. Each child follows it: it ends soon after the parent
has, at any moment of the start too. A child that fails leaves its last words to its parent, which
says one line for all.

This file imports nothing that takes time, since a command reads it before all else.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

STARTED_BY = "STARTED_BY_PROCESS"  # in the environment of a child: its parent, and the pipe to it
PR_SET_PDEATHSIG = 1  # Linux: the signal that a process gets when the one that started it ends
GRACE = 30.0  # seconds for a process to hear by itself, and to write down how the run has ended
# seconds that a parent may be stopped; where processes have met, the strategy's timeout ends a run
# before
PATIENCE = 600.0
MOST_WORDS = 30_000  # bytes, which a pipe takes without a reader

_parent: Parent | None = None  # None where a person or another launcher has started this process
_children: list[subprocess.Popen[bytes]] = []  # that this process watches over
_said = False  # whether this process has said why it ends


class Child(subprocess.Popen[bytes]):
    """A process that this one starts, and that ends soon after it.

    Args:
        command: What it runs.
        environment: Its environment variables.
        settings: Further ones of Popen.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], **settings: Any
    ) -> None:
        self._ear, mouth = os.pipe()
        os.set_blocking(self._ear, False)
        try:
            theirs = {**environment, STARTED_BY: f"{os.getpid()} {mouth}"}
            super().__init__(command, env=theirs, pass_fds=[mouth], **settings)
        finally:
            os.close(mouth)

    def last_words(self) -> tuple[str | None, int] | None:
        """Returns its line and its exit code; None where it has told nothing.

        The line is None where it is said already.
        """
        with suppress(OSError, ValueError):
            line, code = json.loads(os.read(self._ear, MOST_WORDS))
            return line, code
        return None


class Parent:
    """The process that has started this one.

    Args:
        pid: Its number.
        mouth: The pipe that it reads.
    """

    def __init__(self, pid: int, mouth: int) -> None:
        self.pid = pid
        self.mouth = mouth
        os.set_inheritable(mouth, False)

    def lives(self) -> bool:
        """Returns whether it runs, or has been stopped."""
        return os.getppid() == self.pid

    def is_gone(self, seconds: float) -> bool:
        """Returns whether it ends within some seconds.

        One that is stopped would never hear of this process's end, and is killed.
        """
        until = time.monotonic() + seconds
        while self.lives():
            if state(self.pid) == "T":
                with suppress(OSError):
                    os.kill(self.pid, signal.SIGKILL)
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def tell(self, line: str | None, code: int) -> None:
        """Leaves the last words of this process to it.

        Args:
            line: What a person is to read; None where it has been said.
            code: The exit code.
        """
        # a character is up to six bytes of JSON
        short = None if line is None else line[: MOST_WORDS // 8]
        with suppress(OSError):
            os.write(self.mouth, json.dumps([short, code]).encode())

    def follow(self) -> None:
        """Ends this process some time after its parent has ended, from a thread of its own."""
        # a process that is stopped has to wake; the signal does nothing else, and so it may come
        # when a thread alone has ended
        signal_when_alone(signal.SIGCONT)
        threading.Thread(target=self._follow, daemon=True, name="follows its parent").start()

    def _follow(self) -> None:
        stopped = 0.0  # seconds, while this process runs: Ctrl-Z stops both
        while self.lives():
            time.sleep(0.5)
            stopped = stopped + 0.5 if state(self.pid) == "T" else 0.0
            if stopped > PATIENCE:
                self.is_gone(0.5)
        if "LOCAL_RANK" in os.environ:  # it has work, and may hear by itself
            time.sleep(GRACE / 6)
            if not _said:
                say_for_the_left("the first process has ended")
        os._exit(1)


def follow_parent(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes this process follow the one that has started it, if that is one of ours.

    Processes that it starts itself do not follow that one.
    """
    global _parent
    words = environment.pop(STARTED_BY, None)
    if words is not None:
        _parent = Parent(*map(int, words.split()))
        _parent.follow()


def tell_parent(line: str | None, code: int) -> None:
    """Leaves the last words of this process to its parent, if it has one of ours.

    Args:
        line: What a person is to read; None where it has been said.
        code: The exit code.
    """
    if _parent is not None:
        _parent.tell(line, code)


def signal_when_alone(number: int) -> None:
    """Asks Linux for a signal to this process when the thread that has started it ends.

    Other systems do nothing.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def state(pid: int) -> str:
    """Returns the state of a process in a letter, T for stopped; '' where nobody knows."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@dataclass(frozen=True)
class Fate:
    """How a child has ended.

    Attributes:
        rank: Which process of this machine it was.
        code: Its exit code; minus the number of the signal that has ended it.
        words: What it has told, see :meth:`Child.last_words`.
        state: In which state it was killed from here; '' where it ended by itself.
    """

    rank: int
    code: int
    words: tuple[str | None, int] | None
    state: str

    def __str__(self) -> str:
        """Says how it ended; nothing where it ended as it should, or with others."""
        if self.state:
            return f"process {self.rank} " + (
                "is stopped" if self.state == "T" else "does not answer"
            )
        if self.code >= 0:
            return ""
        why = ", as a system does that is short of memory" if self.code == -signal.SIGKILL else ""
        return f"process {self.rank} was ended by {signal.Signals(-self.code).name}{why}"


def end(children: list[subprocess.Popen[bytes]], seconds: float) -> list[Fate]:
    """Waits for the end of children, kills the late ones, and returns how each has ended.

    Args:
        children: In the order of their ranks, from 1. The list is emptied: nobody else is to look
            after them.
        seconds: For how long.
    """
    until = time.monotonic() + seconds
    mine = list(children)
    children.clear()
    fates = []
    for rank, child in enumerate(mine, start=1):
        letter = ""
        try:
            child.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            letter = state(child.pid) or "?"
            child.kill()
        code = child.wait()
        words = child.last_words() if isinstance(child, Child) else None
        fates.append(Fate(rank, code, words, letter))
    return fates


def end_children(seconds: float) -> None:
    """Ends the children that this process watches over.

    Args:
        seconds: For how long to wait for each.
    """
    end(_children, seconds)


def watch_over(children: list[subprocess.Popen[bytes]]) -> None:
    """Ends this process when a child has failed and nobody hears of it in a while.

    Nobody does before the processes have met.
    """
    global _children
    _children = children

    def watch() -> None:
        while not any(child.poll() for child in children):
            time.sleep(0.5)
        time.sleep(GRACE)
        if children:  # nobody has
            os._exit(say_for_all(end(children, seconds=1.0), "a process has ended"))

    threading.Thread(target=watch, daemon=True, name="watches over children").start()


# -- one line for all -----------------------------------------------------------------------------
def fail(message: str, code: int = 2) -> NoReturn:
    """Says in one line why this process ends, and ends it; a child leaves that to its parent."""
    # a rank alone is a leftover in someone's shell; Lightning takes the size of the world away when
    # it ends
    started = _parent is not None or "WORLD_SIZE" in os.environ
    rank = int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) if started else 0
    line = f"error{f' on rank {rank}' if rank else ''}: {message}"
    if _parent is None or _parent.is_gone(0.5):
        say(line)
    else:
        _parent.tell(line, code)
    sys.exit(code)


def fail_with_others(reason: str) -> NoReturn:
    """Ends this process because another one does not answer.

    Where that was its parent, one of the children says so.

    Args:
        reason: How it has noticed.
    """
    if _parent is None:
        sys.exit(say_for_all(end(_children, seconds=5.0), reason))
    if _parent.is_gone(2.0):
        say_for_the_left(reason)
    sys.exit(1)


def say_for_all(fates: Sequence[Fate], reason: str) -> int:
    """Says the last words of a child, or else how the children have ended.

    Returns:
        The exit code of this process.
    """
    for fate in fates:
        if fate.words is not None:
            line, code = fate.words
            if line is not None:
                say(line)
            return code
    say(f"error: {explain_loss('; '.join(filter(None, map(str, fates))) or reason)}")
    return 1


def say_for_the_left(reason: str) -> None:
    """Says for the children of a process that has gone why they end; the first of them does."""
    if os.environ.get("LOCAL_RANK") == "1":
        say(f"error: {explain_loss(reason)}")


def say(line: str) -> None:
    """Prints the one line that this process says of its end, on standard error."""
    global _said
    _said = True
    print(line, file=sys.stderr, flush=True)


def explain_loss(how: str) -> str:
    """Returns that a process ends because another one has."""
    return (
        "another process of this run has ended or does not answer, and this one ends with it: "
        f"{how}"
    )
