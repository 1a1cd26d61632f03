"""Makes the folder of a study on disk, record and run folders, from a table of scores.

Nothing is trained: each trial gets the files that a run leaves behind, as far as reports read them.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.analysis.comparison import Comparison, compare_rows
from src.analysis.record import Candidate, Replicate, Row, StudyRecord, TaskRecord, write_study
from src.analysis.results import StudyResults

Tasks = dict[str, TaskRecord]
TASKS: Tasks = {
    "digit": {"monitor": "accuracy", "metrics": {"accuracy": 1, "f1": 1}},
    "odd": {"monitor": "auroc", "metrics": {"auroc": 1}},
    "ink": {"monitor": "rmse", "metrics": {"r2": 1, "rmse": -1, "mae": -1}},
}
# test values of a network that is neither good nor bad, by column
USUAL = {"accuracy": 0.95, "f1": 0.94, "auroc": 0.98, "r2": 0.80, "rmse": 0.45, "mae": 0.35}
Kind = Literal["single", "tuned", "method", "reference", "ensemble"]
STAMP = "2026-01-31_12-00-00"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VERSIONS = {"torch": "2.13.0+cpu", "lightning": "2.6.6"}


@dataclass
class MadeRow:
    """A row of the made study.

    Attributes:
        name: Its name.
        kind: single has a trial for each task, and tunes each task by itself; tuned has candidates
            with weights of losses; a reference has no checkpoint, and one trial for all seeds.
        settings: Its settings over the base configuration.
        seconds: Seconds of one trial.
    """

    name: str
    kind: Kind = "method"
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 20.0

    @property
    def role(self) -> Literal["method", "baseline", "reference"]:
        """The role in the record."""
        if self.kind == "reference":
            return "reference"
        return "baseline" if self.kind in ("single", "tuned") else "method"


SINGLE, TUNED = "single-task", "tuned fixed weights"
ROWS = [
    MadeRow(SINGLE, "single", {"model.sharing": "Separate"}, seconds=10.0),
    MadeRow(TUNED, "tuned"),
    MadeRow("StaticWeights", settings={"model.balancer": "StaticWeights"}),
    MadeRow("PCGrad", settings={"model.balancer": "PCGrad"}, seconds=30.0),
    MadeRow("ensemble", "ensemble"),
    MadeRow("constant", "reference", seconds=0.5),
]


def name_columns(tasks: Mapping[str, TaskRecord]) -> list[tuple[str, str]]:
    """The columns of a table of scores: (task, metric)."""
    return [(task, metric) for task, its in tasks.items() for metric in its["metrics"]]


def draw_scores(
    rows: Sequence[MadeRow],
    tasks: Mapping[str, TaskRecord],
    replicates: int,
    spread: float = 0.005,
    gains: Mapping[str, float] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Draws test values, (rows, replicates, columns), normal around the usual ones.

    Args:
        rows: The rows.
        tasks: The tasks.
        replicates: How many replicates.
        spread: Standard deviation as a share of the usual value.
        gains: {row: gain as a share of the usual value, positive where the row is better}.
        seed: Seed of the numbers.
    """
    columns = name_columns(tasks)
    usual = np.array([USUAL.get(metric, 0.5) for _, metric in columns])
    signs = np.array([tasks[task]["metrics"][metric] for task, metric in columns])
    noise = np.random.default_rng(seed).normal(0, spread, (len(rows), replicates, len(columns)))
    gain = np.array([(gains or {}).get(row.name, 0.0) for row in rows])
    return usual * (1 + noise + gain[:, None, None] * signs)


class Maker:
    """Writes trials below a root and keeps their record."""

    def __init__(self, root: Path, tasks: Tasks, folds: int | None) -> None:
        self.root = root
        self.tasks = tasks
        self.folds = folds
        self.trials: dict[str, Any] = {}

    def add(
        self,
        row: MadeRow,
        key: str,
        test: Mapping[str, float] | None,
        validation: Mapping[str, float],
        seed: int,
        settings: Mapping[str, Any] | None = None,
        tasks: Sequence[str] | None = None,
        fails: str | None = None,
    ) -> str:
        """Adds a trial with its run folder; returns its key."""
        names = list(tasks or self.tasks)
        module = {"reference": "src.reference", "ensemble": "src.ensemble"}
        flags = [
            f"--{name}={value}" for name, value in {**row.settings, **(settings or {})}.items()
        ]
        command = [module.get(row.kind, "src.train"), "--seed_everything", str(seed), *flags]
        if test is None:
            command.append("--no_test")
        self.trials[key] = {
            "command": command,
            "run": f"trials/{key}/{STAMP}",
            "status": "failed" if fails else "finished",
            "error": fails,
            "seconds": row.seconds,
        }
        run = self.root / "trials" / key / STAMP
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(
            f"seed_everything: {seed}\n"
            "data: {class_path: src.data.Digits}\nmodel: {}\ntrainer: {max_epochs: 3}\n"
        )
        sizes = {"train": 1000, "val": 250, "test": 1250 // ((self.folds or 5) - 1)}
        file = {"given": "t.csv", "path": "/data/t.csv", "bytes": 9, "sha256": "f00d", "rows": 1500}
        git = {"commit": COMMIT, "dirty": False, "untracked": [], "diff": None}
        session = {
            "started": "2026-01-31T12:00:00+00:00",
            "command": f"python -m {' '.join(command)}",
            "job": None,
            "git": git,
            "status": "failed" if fails else "finished",
            "seconds": row.seconds,
            "peak_memory_bytes": {"host": 500_000_000 + 1_000_000 * round(row.seconds)},
            "epochs": 3,
            "steps": 51,
        }
        if fails:
            session["error"] = fails
        record = {
            "seed": seed,
            "python": "3.11.7",
            "platform": "Linux",
            "versions": VERSIONS,
            "git": git,
            "data": {"files": {"train": file}, "rows": sizes},
            "sessions": [session],
        }
        write(run / "run.json", record)
        if fails:
            return key
        results = {"validation": {f"val/{name}": value for name, value in validation.items()}}
        if test is not None:
            results["test"] = {f"test/{name}": value for name, value in test.items()}
        write(run / "metrics.json", results)
        if row.kind not in ("reference", "ensemble"):
            write(run / "progress.json", self.make_progress(validation, names))
            (run / "checkpoints").mkdir()
            (run / "checkpoints" / "best.ckpt").write_bytes(b"")
        return key

    def make_progress(self, validation: Mapping[str, float], names: Sequence[str]) -> Any:
        """Three validations that rise to the best one, higher is better."""
        entries = []
        for epoch, short in enumerate((0.30, 0.10, 0.0), 1):
            scores = {}
            for name in names:
                monitor = self.tasks[name]["monitor"]
                sign = self.tasks[name]["metrics"][monitor]
                scores[name] = sign * validation[f"{name}/{monitor}"] - short
            entries.append(
                {
                    "step": 17 * epoch,
                    "epoch": epoch,
                    "seconds": 1.5 * epoch,
                    "score": float(np.mean(list(scores.values()))),
                    "tasks": scores,
                }
            )
        return {"step": 51, "steps": 51, "validations": entries}


def make_study(
    folder: Path,
    scores: np.ndarray | None = None,
    *,
    rows: Sequence[MadeRow] = ROWS,
    tasks: Tasks = TASKS,
    seeds: Sequence[int] = (0, 1, 2),
    folds: int | None = None,
    candidates: int = 3,
    failed: Mapping[tuple[str, int], str] | None = None,
    finished: bool = True,
) -> Path:
    """Makes the folder of a study, whose root is the folder above it.

    Args:
        folder: The study's folder.
        scores: Test values, (rows, replicates, columns), see :func:`name_columns`; drawn where
            there are none. A NaN is a metric that is not defined. Replicates go fold by fold, the
            seeds of a fold one after another.
        rows: The rows.
        tasks: The tasks.
        seeds: The seeds.
        folds: The number of folds.
        candidates: Settings that were tuned in each row but references and ensembles; 0 for none.
        failed: {(row, place of a replicate): the line with which its trial has failed}.
        finished: Whether the study has ended; otherwise the last row lacks its last replicate.

    Returns:
        The folder.
    """
    places = [(seed, fold) for fold in (range(folds) if folds else [None]) for seed in seeds]
    if scores is None:
        scores = draw_scores(rows, tasks, len(places))
    maker = Maker(folder.parent, tasks, folds)
    columns = name_columns(tasks)
    made: list[Row] = []
    for k, row in enumerate(rows):
        tuned: list[Candidate] = []
        for fold in range(folds) if folds else [None]:
            first = 0 if fold is None else fold * len(seeds)
            tuned += add_candidates(maker, row, scores[k, first], columns, k, candidates, fold)
        replicates: list[Replicate] = []
        for place, (seed, fold) in enumerate(places):
            if not finished and k == len(rows) - 1 and place == len(places) - 1:
                continue
            values = {f"{t}/{m}": v for (t, m), v in zip(columns, scores[k, place], strict=True)}
            fails = (failed or {}).get((row.name, place))
            replicates.append(add_replicate(maker, row, k, place, seed, fold, values, fails))
        made.append(
            {
                "name": row.name,
                "role": row.role,
                "settings": row.settings,
                "candidates": tuned,
                "replicates": replicates,
            }
        )
    names = [row.name for row in rows]
    record: StudyRecord = {
        "name": folder.name,
        "command": "python -m src.compare --config configs/study/made.yaml",
        "started": "2026-01-31T12:00:00+00:00",
        "finished": finished,
        "tasks": tasks,
        "seeds": list(seeds),
        "folds": folds,
        "tuning": {
            "method": "grid",
            "space": {"model.optimizer.lr": [0.001, 0.003, 0.01]},
            "trials": candidates,
            "by": "val/score",
        }
        if candidates
        else None,
        "baseline": TUNED if TUNED in names else None,
        "single_task": SINGLE if SINGLE in names else None,
        "rows": made,
        "trials": maker.trials,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_study(folder, record)
    return folder


def add_candidates(
    maker: Maker,
    row: MadeRow,
    scores: np.ndarray,
    columns: Sequence[tuple[str, str]],
    number: int,
    count: int,
    fold: int | None,
) -> list[Candidate]:
    """Adds the trials that tune a row on one fold; the second one is the best for all tasks."""
    found: list[Candidate] = []
    if row.kind in ("reference", "ensemble"):
        return found
    groups = [[task] for task in maker.tasks] if row.kind == "single" else [list(maker.tasks)]
    for group in groups:
        for place in range(count):
            loss = 0.02 * abs(place - 1)
            values = {
                f"{task}/{metric}": value - loss * maker.tasks[task]["metrics"][metric]
                for (task, metric), value in zip(columns, scores, strict=True)
                if task in group
            }
            settings: dict[str, Any] = {"model.optimizer.lr": [0.001, 0.003, 0.01][place % 3]}
            if row.kind == "tuned":
                shares = np.linspace(0.2, 0.8, count)[place]
                rest = (1 - shares) / max(1, len(maker.tasks) - 1)
                weights = [shares, *[rest] * (len(maker.tasks) - 1)]
                for task, weight in zip(maker.tasks, weights, strict=True):
                    settings[f"model.weights.{task}"] = round(float(weight), 4)
            words = "-".join(group) if row.kind == "single" else "all"
            key = f"tune-{number}-{words}-{place}" + ("" if fold is None else f"-fold-{fold}")
            maker.add(row, key, None, values, 0, settings, group)
            chosen = group if place == min(1, count - 1) else []
            score = float(np.mean(list(values.values())))
            found.append(
                {
                    "settings": settings,
                    "trial": key,
                    "fold": fold,
                    "score": score,
                    "chosen": list(chosen),
                }
            )
    return found


def add_replicate(
    maker: Maker,
    row: MadeRow,
    number: int,
    place: int,
    seed: int,
    fold: int | None,
    values: Mapping[str, float],
    fails: str | None,
) -> Replicate:
    """Adds the trials of one replicate."""
    trials: dict[str, str] = {}
    if row.kind == "single":
        for task in maker.tasks:
            own = {key: value for key, value in values.items() if key.startswith(f"{task}/")}
            key = f"row-{number}-{place}-{task}"
            trials[task] = maker.add(row, key, own, own, seed, tasks=[task], fails=fails)
    else:
        # a reference knows no seed: one trial for each fold
        key = f"row-{number}-{fold if row.kind == 'reference' else place}"
        if key not in maker.trials:
            maker.add(row, key, values, values, seed, fails=fails)
        trials = dict.fromkeys(maker.tasks, key)
    replicate: Replicate = {"seed": seed, "fold": fold, "trials": trials}
    if row.kind == "ensemble":
        members = [key for key in maker.trials if key.startswith("row-2-")]
        replicate["members"] = members
    return replicate


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON; NaN becomes null, as in a run folder."""
    plain = json.loads(json.dumps(content), parse_constant=lambda _: None)
    path.write_text(json.dumps(plain, indent=2))


def edit(path: Path, **changes: Any) -> None:
    """Changes entries at the top of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def report(folder: Path, shown: Sequence[tuple[str, str]] = (("digit", "accuracy"),)) -> Comparison:
    """Computes the tables of a study, and writes nothing."""
    results = StudyResults(folder)
    return compare_rows(results, results.list_values(), list(shown), None)


def remove_run(folder: Path, key: str) -> Path:
    """Removes the run folder of a trial; returns its path."""
    run = folder.parent / "trials" / key / STAMP
    shutil.rmtree(run)
    return run
