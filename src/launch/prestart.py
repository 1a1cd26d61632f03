"""Processes of other ranks that import what they need while the first one does, and then wait to be told who they are.

Importing takes most of the start of a run. One process after the other would pay it twice:
Lightning starts the others when the first one has built everything. This file imports nothing that
takes time, since ``src/__init__.py`` reads it before all else.
"""

import atexit
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from src.processes import Child

_waiting: list[Child] = []
ELSEWHERE = (
    "LOCAL_RANK",
    "RANK",
    "SLURM_PROCID",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
)  # someone else starts the processes
ENDS_SOON = ("--plan", "--help", "-h", "--print_config")


def asked_for(words: Sequence[str]) -> int:
    """How many processes a command line names; 1 where it does not say, or the verb will start none."""
    line = " ".join(words)
    if not re.search(r" -m src\.(train|evaluate|predict)( |$)", line) or set(words) & set(
        ENDS_SOON
    ):
        return 1
    found = re.findall(r" --(?:trainer\.)?devices[ =](\d+)(?= |$)", line)
    return (
        int(found[-1])
        if found and not re.search(r" --(?:trainer\.)?strategy[ =]placement(?= |$)", line)
        else 1
    )


def start(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
    """Starts those that a command line will need, as long as there are cores for them."""
    if any(name in environment for name in ELSEWHERE):
        return
    for _ in range(min(asked_for(words), os.cpu_count() or 1) - 1):
        verb = words[list(words).index("-m") + 1]
        command = [sys.executable, "-c", f"from src.launch.prestart import wait; wait('{verb}')"]
        _waiting.append(Child(command, environment, stdin=subprocess.PIPE))


def take(environment: Mapping[str, str]) -> Child | None:
    """One of them, which now runs this command line with another environment; None if none is left."""
    while _waiting:
        process = _waiting.pop()
        if process.poll() is None:
            assert process.stdin is not None
            process.stdin.write(
                json.dumps({"environment": dict(environment), "words": sys.argv[1:]}).encode()
            )
            process.stdin.close()
            return process
    return None


@atexit.register
def dismiss() -> None:
    """Ends those that wait; nothing is lost."""
    while _waiting:
        process = _waiting.pop()
        process.kill()
        process.communicate()


def wait(verb: str) -> None:
    """What such a process does."""
    try:
        import_module(verb)  # which takes the time
        order = json.loads(sys.stdin.read() or "{}")
    except (KeyboardInterrupt, Exception):  # what cannot be imported, the first process says
        sys.exit(1)
    if not order:  # the first process has ended, or needs no other
        return
    os.environ.clear()
    os.environ.update(order["environment"])
    rank_zero_only = import_module("lightning.fabric.utilities.rank_zero").rank_zero_only
    rank_zero_only.rank = int(
        os.environ["LOCAL_RANK"]
    )  # Lightning has looked when it was imported, and taken this for the first
    sys.argv = [verb, *order["words"]]
    del sys.modules[verb]  # it runs as the main one
    runpy.run_module(verb, run_name="__main__", alter_sys=True)
