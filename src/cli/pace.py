"""Measures how long a trial of a study takes, by training the base of it for a few seconds."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.analysis.study_plan import Pace
from src.errors import UserError
from src.files.typed import read_json
from src.launch.executors import LocalExecutor

SECONDS = 8  # of training: long enough for the first slow steps not to count much


def measure_pace(words: Sequence[str]) -> Pace:
    """Trains for a few seconds in a folder that is removed again.

    Args:
        words: The command line of the training.

    Raises:
        UserError: The training fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        limit = ["--trainer.max_time", f"00:00:00:{SECONDS:02d}"]
        place = ["--logs", str(root / "runs"), "--name", "pace", "--no_test"]
        began = time.monotonic()
        executor = LocalExecutor()
        job = executor.start(["src.train", *words, *limit, *place], root / "log.txt", 0)
        try:
            while job.poll() is None:
                time.sleep(0.1)
        finally:
            job.kill()
        wall = time.monotonic() - began

        runs = list(root.glob("runs/pace/*/run.json"))
        if job.poll() or not runs:
            raise UserError(f"the base of the study does not train: {job.explain()}")
        progress = read_json(runs[0].with_name("progress.json"), dict[str, Any])
        session = read_json(runs[0], dict[str, Any])["sessions"][-1]
        taken = session["steps"] or 1
        points = progress["validations"]
        trained = points[-1]["seconds"] if points else float(SECONDS)
        step = trained / (points[-1]["step"] if points else taken)
    return Pace(max(wall - trained, 0.0), step, progress.get("steps") or taken)
