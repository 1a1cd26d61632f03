"""Commands for tests of executors: one that ends, one that fails, one that runs until it is asked.

python -m tests.launch.executors.toy_command say WORD | fail | break | wait FILE | hang FILE
"""

import os
import signal
import sys
import time
from pathlib import Path

from src import processes


def main(action: str, *words: str) -> None:
    processes.follow_parent()
    if action == "say":
        print(*words, flush=True)
        print("job", os.environ.get("SLURM_JOB_ID"), "tasks", os.environ.get("SLURM_NTASKS"))
    if action == "fail":
        processes.fail("column 'age' is not in the table")
    if action == "break":
        print("half of a line", flush=True)
        sys.exit(3)
    if action in ("wait", "hang"):
        wait(Path(words[0]), saves=action == "wait")


def wait(path: Path, saves: bool) -> None:
    """Runs until a signal, then saves as a run does, or does not hear of it."""
    heard: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: heard.append(number))
    path.write_text(str(os.getpid()))
    while not (heard and saves):
        time.sleep(0.02)
    time.sleep(0.3)
    path.with_suffix(".saved").write_text(signal.Signals(heard[0]).name)
    sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
