"""The record of a study, study.json: its rows, the trials behind them, and how each has ended.

<root>/
    trials/<key>/<date-time>/   run folders, shared by all studies of one root
    <study>/
        study.yaml              the study as it was given, with every default
        study.json              this record
        study.lock              who runs the study now
        report.html ...         the report, which this folder and the run folders can make again

The report reads nothing else but the run folders that the record names.
"""

from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import read_json, to_json

NAME = "study.json"
Status = Literal["planned", "running", "finished", "failed", "interrupted", "pruned"]


class TaskRecord(TypedDict):
    """How the metrics of a task are read.

    Attributes:
        monitor: The metric that counts for the selection of weights.
        metrics: {metric: 1 where more is better, -1 where less is}.
    """

    monitor: str
    metrics: dict[str, int]


class Trial(TypedDict):
    """One process of a study, and the run folder that it leaves.

    Attributes:
        command: The module and its flags, such as ["src.train", "--seed_everything", "0"].
        run: The run folder, relative to the root; None while there is none.
        status: How it stands.
        error: The line that a failed trial has said.
        seconds: Wall-clock time of all its sessions; None while it is not known.
    """

    command: list[str]
    run: str | None
    status: Status
    error: str | None
    seconds: float | None


class Candidate(TypedDict):
    """One setting that was tried on validation rows.

    Attributes:
        settings: {dotted key: value} of what is tuned.
        trial: The key of its trial.
        fold: The fold that it was tuned for; None where there are none.
        score: The validation score of its best checkpoint; None where it has none.
        chosen: The tasks for which it was chosen; all of them but in single-task rows.
    """

    settings: dict[str, Any]
    trial: str
    fold: int | None
    score: float | None
    chosen: list[str]


class Replicate(TypedDict):
    """One repetition of a row: a seed, on one fold of the data where there are folds.

    Attributes:
        seed: The seed.
        fold: The fold that tests; None where the data have one split.
        trials: {task: key of the trial whose test metrics count for it}; a task is absent while
            that is not decided.
        members: Keys of the trials that an ensemble averages.
    """

    seed: int
    fold: int | None
    trials: dict[str, str]
    members: NotRequired[list[str]]


class Row(TypedDict):
    """One row of the report.

    Attributes:
        name: Its name.
        role: A method under comparison, a baseline that every study has, or a reference that is
            no network.
        settings: {dotted key: value} over the base configuration.
        candidates: What was tuned; empty where nothing was.
        replicates: The repetitions.
    """

    name: str
    role: Literal["method", "baseline", "reference"]
    settings: dict[str, Any]
    candidates: list[Candidate]
    replicates: list[Replicate]


class Tuning(TypedDict):
    """How settings were tuned.

    Attributes:
        method: grid, or the name of a sampler.
        space: {dotted key: values, or the bounds of a range}.
        trials: Candidates for each row.
        by: The metric that has chosen, such as val/score.
    """

    method: str
    space: dict[str, Any]
    trials: int
    by: str


class StudyRecord(TypedDict):
    """The record of a study.

    Attributes:
        name: Its name.
        command: The command line that made it.
        started: Date and time.
        finished: Whether every trial has ended.
        tasks: {task: how its metrics are read}.
        seeds: The seeds of replicates.
        folds: The number of folds; None where the data have one split.
        tuning: How settings were tuned; None where they were not.
        baseline: The row that the others are tested against.
        single_task: The row that deltas refer to.
        rows: The rows, in the order of the report.
        trials: {key: trial}.
    """

    name: str
    command: str
    started: str
    finished: bool
    tasks: dict[str, TaskRecord]
    seeds: list[int]
    folds: int | None
    tuning: Tuning | None
    baseline: str | None
    single_task: str | None
    rows: list[Row]
    trials: dict[str, Trial]


def read_study(folder: Path) -> StudyRecord:
    """Reads the record of a study.

    Raises:
        UserError: The folder holds no study, or its record is damaged.
    """
    path = folder / NAME
    if not folder.is_dir():
        raise UserError(f"study folder {folder} does not exist")
    if not path.is_file():
        raise UserError(f"{folder} is no study folder: it holds no {NAME}")
    return cast(StudyRecord, read_json(path, StudyRecord))


def write_study(folder: Path, record: StudyRecord) -> None:
    """Writes the record, whole or not at all."""
    write_atomically(folder / NAME, lambda file: file.write(to_json(record)))
