"""The results of a study's trials, read from the run folders that its record names."""

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd

from src.analysis.record import Replicate, Row, StudyRecord, Trial, read_study
from src.errors import UserError
from src.files.typed import Count, read_json
from src.run import Run
from src.run.contents import Record

NAN = float("nan")


class Validation(TypedDict):
    """One validation in progress.json."""

    step: Count
    epoch: Count
    score: float | None
    tasks: dict[str, float | None]


class Progress(TypedDict):
    """The progress of a run, progress.json."""

    step: Count
    validations: list[Validation]


class Value(NamedTuple):
    """A metric of a replicate; the fields are the columns of ``Comparison.values``."""

    row: str
    role: str
    seed: int
    fold: int | None
    task: str
    metric: str
    split: str
    value: float
    sign: int
    run: str


@dataclass(frozen=True)
class TrialResults:
    """The results that one trial has left behind.

    Attributes:
        run: Its run folder, relative to the root.
        path: The folder itself.
        metrics: {"val" or "test": {task/metric: value}}; NaN where a metric is not defined.
        record: Its run.json; empty where there is none.
        validations: Its validations; none where it does not train.
        steps: Optimizer steps; NaN where it takes none.
        seconds: Wall-clock time.
        memory: Peak bytes, of its GPU where it has one; NaN where that is not known.
    """

    run: str
    path: Path
    metrics: dict[str, dict[str, float]]
    record: dict[str, Any]
    validations: list[Validation]
    steps: float
    seconds: float
    memory: float


class StudyResults:
    """The results of a study.

    Args:
        folder: The study's folder; run folders lie below the folder above it.

    Raises:
        UserError: The folder holds no study, or a run folder that the report needs is gone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder.resolve().parent
        self.record: StudyRecord = read_study(folder)
        self.trials: dict[str, TrialResults] = {}
        self.lost: list[str] = []  # trials of tuning whose run folders are gone
        for key in sorted(self.users):
            self._read(key)

    @cached_property
    def users(self) -> dict[str, list[str]]:
        """{key of a trial: the places that use it, such as "PCGrad, seed 0"}, in words."""
        found: dict[str, list[str]] = defaultdict(list)
        for row in self.record["rows"]:
            for candidate in row["candidates"]:
                found[candidate["trial"]].append(f"{row['name']}, tuning")
            for replicate in row["replicates"]:
                place = f"{row['name']}, {name_place(replicate['seed'], replicate['fold'])}"
                for key in list_trials(replicate):
                    tasks = [task for task, by in replicate["trials"].items() if by == key]
                    alone = len(set(replicate["trials"].values())) > 1 and tasks
                    found[key].append(f"{place}, {', '.join(tasks)}" if alone else place)
        return found

    @cached_property
    def needed(self) -> set[str]:
        """The keys of trials behind replicates."""
        rows = self.record["rows"]
        replicates = [replicate for row in rows for replicate in row["replicates"]]
        return {key for replicate in replicates for key in list_trials(replicate)}

    def _read(self, key: str) -> None:
        """Reads the run folder of a trial that has finished.

        Raises:
            UserError: It is gone.
        """
        trial = self.record["trials"].get(key)
        if trial is None or trial["status"] not in ("finished", "pruned") or trial["run"] is None:
            return
        run = Run(self.root / trial["run"])
        if run.metrics.is_file():
            self.trials[key] = read_trial(run, trial)
        elif key not in self.needed:
            self.lost.append(key)
        else:
            raise UserError(
                f"run folder {run.path} ({self.users[key][0]}) "
                f"{'has lost its metrics.json' if run.path.is_dir() else 'is gone'}: run "
                f"`{self.record['command']}` again, which trains it anew"
            )

    # -- tables ------------------------------------------------------------------------------------
    def list_values(self) -> list[Value]:
        """Returns every metric of every replicate, on validation and on test rows."""
        found = []
        for row, replicate, task, trial in self._walk():
            place = (row["name"], row["role"], replicate["seed"], replicate["fold"], task)
            for split in ("val", "test"):
                for metric, sign in self.record["tasks"][task]["metrics"].items():
                    # a metric that a run does not have, which is not NaN
                    value = trial.metrics[split].get(f"{task}/{metric}")
                    if value is not None:
                        found.append(Value(*place, metric, split, value, sign, trial.run))
        return found

    def list_curves(self) -> pd.DataFrame:
        """Returns the validations of replicates; see :class:`Comparison`."""
        columns = ["row", "seed", "fold", "task", "step", "epoch", "score"]
        lines: list[tuple[Any, ...]] = []
        for row, replicate, task, trial in self._walk():
            place = (row["name"], replicate["seed"], replicate["fold"])
            # a network of one task has no score of all tasks
            first = task == next(iter(replicate["trials"]))
            has_all = first and len(set(replicate["trials"].values())) == 1
            for entry in trial.validations:
                at = (entry["step"], entry["epoch"])
                if has_all:
                    lines.append((*place, "", *at, to_number(entry["score"])))
                if task in entry["tasks"]:
                    lines.append((*place, task, *at, to_number(entry["tasks"][task])))
        frame = pd.DataFrame(lines, columns=columns)
        return frame.astype({"seed": "int64", "fold": "Int64", "score": "float64"})

    def list_candidates(self) -> pd.DataFrame:
        """Returns the monitors of settings that were tuned; see :class:`Comparison`."""
        columns = ["row", "fold", "trial", "run", "settings"]
        columns += ["task", "value", "score", "chosen"]
        lines: list[tuple[Any, ...]] = []
        for row in self.record["rows"]:
            for candidate in row["candidates"]:
                trial = self.trials.get(candidate["trial"])
                if trial is None:
                    continue
                settings = json.dumps(candidate["settings"])
                for task, its in self.record["tasks"].items():
                    value = trial.metrics["val"].get(f"{task}/{its['monitor']}")
                    if value is not None:
                        chosen = task in candidate["chosen"]
                        score = to_number(candidate["score"])
                        place = (row["name"], candidate["fold"], candidate["trial"])
                        lines.append((*place, trial.run, settings, task, value, score, chosen))
        frame = pd.DataFrame(lines, columns=columns)
        kinds = {"fold": "Int64", "value": "float64", "score": "float64", "chosen": "bool"}
        return frame.astype(kinds)

    def _walk(self) -> list[tuple[Row, Replicate, str, TrialResults]]:
        """Returns each task of each replicate with the trial that counts for it, where there is."""
        found = []
        for row in self.record["rows"]:
            for replicate in row["replicates"]:
                for task in self.record["tasks"]:
                    trial = self.trials.get(replicate["trials"].get(task, ""))
                    if trial is not None:
                        found.append((row, replicate, task, trial))
        return found


def list_trials(replicate: Replicate) -> list[str]:
    """Returns the keys of the trials behind a replicate, each once."""
    return list(dict.fromkeys([*replicate["trials"].values(), *replicate.get("members", [])]))


def name_place(seed: int, fold: int | None) -> str:
    """Returns a replicate in words."""
    return f"seed {seed}" if fold is None else f"seed {seed}, fold {fold}"


def read_trial(run: Run, trial: Trial) -> TrialResults:
    """Reads the run folder of a trial.

    Raises:
        UserError: A file in it is damaged.
    """
    results = run.read_results() or {"validation": {}}
    metrics = {
        "val": strip_stage(results["validation"], "val/"),
        "test": strip_stage(results.get("test", {}), "test/"),
    }
    record = read_json(run.record, Record) if run.record.is_file() else {"sessions": []}
    sessions = record["sessions"]
    progress: Progress = {"step": 0, "validations": []}
    path = run.path / "progress.json"
    if path.is_file():
        progress = read_json(path, Progress)

    seconds = trial["seconds"]
    if seconds is None:
        # a session that was killed has noted no time
        seconds = sum(session.get("seconds") or 0.0 for session in sessions) or NAN
    steps = [session["steps"] for session in sessions if session.get("steps")]
    peaks = [session["peak_memory_bytes"] for session in sessions if "peak_memory_bytes" in session]
    return TrialResults(
        run=str(trial["run"]),
        path=run.path,
        metrics=metrics,
        record=record,
        validations=progress["validations"],
        steps=float(steps[-1] if steps else progress["step"] or np.nan),
        seconds=float(seconds),
        memory=max((float(peak.get("cuda", peak["host"])) for peak in peaks), default=NAN),
    )


def strip_stage(values: dict[str, float | None], stage: str) -> dict[str, float]:
    """Returns {task/metric: value} of {stage/task/metric: value}, with NaN for null."""
    return {key.removeprefix(stage): to_number(value) for key, value in values.items()}


def to_number(value: float | None) -> float:
    """Returns a value of JSON as a number; null is NaN."""
    return NAN if value is None else float(value)
