"""A trial: one process of a study, known by the hash of its configuration, and its run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from src.analysis.record import Status
from src.errors import UserError
from src.files.typed import read_json
from src.run import Run
from src.run.contents import Results

TRIALS = "trials"  # the folder of all trials below the root of studies
RESUMABLE = ("src.train", "src.affinity")


@dataclass(frozen=True)
class Work:
    """A trial that a study wants.

    Attributes:
        key: The hash that it is known by.
        module: The command, such as src.train.
        flags: The command line after it, without the place of the run folder.
        tests: Whether its weights are to be tested; a candidate of tuning is not.
        label: The row that it is for, and what tells it from the others, for people.
    """

    key: str
    module: str
    flags: tuple[str, ...]
    tests: bool
    label: str


@dataclass(frozen=True)
class Outcome:
    """How a trial stands.

    Attributes:
        status: In a word.
        run: Its run folder; None while there is none.
        results: Its metrics; None while there are none.
        error: The line that it has failed with.
        seconds: Wall-clock time of all its sessions.
        tested: Whether its test metrics are there.
    """

    status: Status
    run: Path | None = None
    results: Results | None = None
    error: str | None = None
    seconds: float | None = None

    @property
    def tested(self) -> bool:
        """Whether its test metrics are there."""
        return bool(self.results and self.results.get("test"))

    def serves(self, work: Work) -> bool:
        """Returns whether nothing is left to do for a trial."""
        return self.status == "finished" and (self.tested or not work.tests)


def find_runs(root: Path, key: str) -> list[Path]:
    """Returns the run folders of a trial, the latest first."""
    folders = (root / TRIALS / key).glob("*/config.yaml")
    return sorted((path.parent for path in folders), reverse=True)


def look_at(root: Path, key: str) -> Outcome:
    """Returns how a trial stands by what lies on the disk.

    A damaged file counts as none: the trial is then run anew.
    """
    for path in find_runs(root, key):
        run = Run.open(path)
        session, seconds = read_sessions(run)
        if session.get("status") == "finished":
            results = read_metrics(run)
            if results is not None:
                return Outcome("finished", path, results, seconds=seconds)
        if run.last.exists() or session.get("status") == "running":
            return Outcome("interrupted", path, seconds=seconds)
    return Outcome("planned")


def read_metrics(run: Run) -> Results | None:
    """Returns the metrics of a run; None where it has none, or they cannot be read."""
    try:
        return run.read_results()
    except (UserError, OSError):
        return None


def read_sessions(run: Run) -> tuple[dict[str, Any], float | None]:
    """Returns the last session of a run, and the seconds of all of them together."""
    try:
        record = read_json(run.record, dict[str, Any])
        sessions = cast(list[dict[str, Any]], record["sessions"])
        seconds = [session["seconds"] for session in sessions if "seconds" in session]
        return sessions[-1], round(sum(seconds), 2) if seconds else None
    except (UserError, OSError, LookupError):
        return {}, None


def read_progress(path: Path) -> dict[str, Any] | None:
    """Returns how far a run has come; None where its file cannot be read."""
    try:
        content: dict[str, Any] = read_json(path, dict[str, Any])
    except (UserError, OSError):
        return None
    return content if {"step", "validations"} <= content.keys() else None


def make_command(root: Path, work: Work, before: Outcome) -> list[str]:
    """Returns the command that carries a trial on from where it stands.

    Args:
        root: The folder of all studies.
        work: The trial.
        before: How it stands; an interrupted run is resumed, one that lacks its test is tested.
    """
    tests = [] if work.tests else ["--no_test"]
    run = before.run
    resumable = work.module in RESUMABLE and run is not None and Run(run).last.exists()
    if resumable:
        return [work.module, "--resume", str(run), "--no_test", str(not work.tests).lower()]
    place = ["--logs", str(root / TRIALS), "--name", work.key]
    return [work.module, *work.flags, *place, *tests]


def describe_command(work: Work) -> list[str]:
    """Returns the command that trains a trial alone, in a folder of its own."""
    return [work.module, *work.flags]


def name_task_scores(results: Results, monitors: dict[str, tuple[str, int]]) -> dict[str, float]:
    """Returns {task: validation score}, higher is better; tasks without a value are left out.

    Args:
        results: The metrics of a run.
        monitors: {task: (metric, 1 where more is better and -1 where less is)}.
    """
    found = {}
    for task, (metric, sign) in monitors.items():
        value = results["validation"].get(f"val/{task}/{metric}")
        if value is not None:
            found[task] = sign * value
    return found


def join_labels(parts: Sequence[str]) -> str:
    """Returns the words of a label that say something, joined."""
    return ", ".join(part for part in parts if part)
