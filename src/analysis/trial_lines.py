"""TensorBoard's hparams page of a study: a line for each trial, with its row, seed and results.

``tensorboard --logdir <study>`` shows these lines alone; curves are in the run folders.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan

from src.analysis.comparison import Comparison
from src.analysis.record import Row
from src.analysis.results import list_trials, name_place

FOLDER = "hparams"


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: Its name.
        settings: {column: setting}; seed and fold of a replicate, and what was tuned.
        metrics: {column: result}.
    """

    name: str
    settings: dict[str, str | int]
    metrics: dict[str, float]


def write_lines(comparison: Comparison) -> None:
    """Writes a line for each trial below the study's folder, in place of an earlier report's."""
    from torch.utils.tensorboard.summary import hparams
    from torch.utils.tensorboard.writer import SummaryWriter

    folder = comparison.folder / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    lines = [*list_replicates(comparison), *list_tuned(comparison)]
    for number, line in enumerate(lines):
        # two names may differ in signs alone that no folder should have
        name = re.sub(r"[^\w.,=+ -]", "_", line.name)
        with SummaryWriter(str(folder / f"{number:03d} {name}")) as writer:
            # without the list of columns, which TensorBoard would take from the first line alone
            _, start, end = hparams(line.settings, {})
            writer.file_writer.add_summary(start)
            writer.file_writer.add_summary(end)
            for key, value in line.metrics.items():
                writer.add_scalar(key, value)


def list_replicates(comparison: Comparison) -> Iterator[Line]:
    """Gives a line for each trial of each replicate."""
    tasks = comparison.record["tasks"]
    found: dict[tuple[str, str], dict[str, float]] = {}
    for value in comparison.values.to_dict("records"):
        if value["metric"] == tasks[value["task"]]["monitor"] and not isnan(value["value"]):
            of_run = found.setdefault((value["row"], value["run"]), {})
            of_run[f"{value['split']}/{value['task']}/{value['metric']}"] = value["value"]

    for row in comparison.record["rows"]:
        for replicate in row["replicates"]:
            for key in list_trials(replicate):
                trial = comparison.record["trials"].get(key)
                metrics = found.get((row["name"], str(trial["run"])), {}) if trial else {}
                if not metrics:
                    continue
                own = [task for task, by in replicate["trials"].items() if by == key]
                words = [row["name"], name_place(replicate["seed"], replicate["fold"])]
                if own != list(tasks):
                    words += own
                settings = list_settings(row, replicate["fold"], own)
                settings["seed"] = replicate["seed"]
                yield Line(", ".join(words), settings, metrics)


def list_tuned(comparison: Comparison) -> Iterator[Line]:
    """Gives a line for each setting that was tried on validation rows."""
    tasks = comparison.record["tasks"]
    found: dict[tuple[str, str], dict[str, float]] = {}
    for value in comparison.candidates.to_dict("records"):
        if not isnan(value["value"]):
            of_trial = found.setdefault((value["row"], value["trial"]), {})
            of_trial[f"val/{value['task']}/{tasks[value['task']]['monitor']}"] = value["value"]

    for row in comparison.record["rows"]:
        for number, candidate in enumerate(row["candidates"]):
            metrics = found.get((row["name"], candidate["trial"]), {})
            if metrics:
                settings = list_settings(row, candidate["fold"], [])
                settings |= {key: str(value) for key, value in candidate["settings"].items()}
                yield Line(f"{row['name']}, tuning {number}", settings, metrics)


def list_settings(row: Row, fold: int | None, tasks: list[str]) -> dict[str, str | int]:
    """Returns the settings of a row on a fold, with what was chosen there for these tasks."""
    settings: dict[str, str | int] = {"row": row["name"]}
    if fold is not None:
        settings["fold"] = fold
    settings |= {key: str(value) for key, value in row["settings"].items()}
    for candidate in row["candidates"]:
        if candidate["fold"] == fold and set(candidate["chosen"]) & set(tasks):
            settings |= {key: str(value) for key, value in candidate["settings"].items()}
    return settings
