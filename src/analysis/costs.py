"""The cost of each row of a study, and how its settings were chosen."""

import json
from collections.abc import Iterable
from math import isnan

import numpy as np
import pandas as pd

from src.analysis.record import Candidate, Replicate, Row
from src.analysis.results import NAN, StudyResults, list_trials, to_number

BALANCER = "model.balancer"
PLAIN = "StaticWeights"


def compare_costs(results: StudyResults) -> tuple[pd.DataFrame, str | None]:
    """Returns the cost of each row, and the row that others are relative to.

    A replicate costs the sum over its trials: a network for each task, or the members of an
    ensemble. Its memory is that of the largest.
    """
    lines = []
    for row in results.record["rows"]:
        costs = [measure_cost(results, replicate) for replicate in row["replicates"]]
        known = [cost for cost in costs if cost is not None]
        seconds, steps, memory = (mean([cost[k] for cost in known]) for k in range(3))
        tried = {candidate["trial"] for candidate in row["candidates"]}
        tuning = [results.trials[key].seconds for key in sorted(tried & results.trials.keys())]
        spent = float(np.nansum(tuning)) if tuning else NAN
        lines.append((row["name"], seconds, steps, memory, NAN, spent, len(known)))

    columns = ["row", "seconds", "steps", "memory", "relative", "tuning_seconds", "n"]
    frame = pd.DataFrame(lines, columns=columns)
    unit = find_plain_row(results)
    if unit is not None:
        of_unit = frame.loc[frame["row"] == unit, "seconds"].iloc[0]
        frame["relative"] = frame["seconds"] / of_unit
    return frame, unit


def measure_cost(results: StudyResults, replicate: Replicate) -> tuple[float, float, float] | None:
    """Returns seconds, steps and peak bytes of a replicate; None where a trial of it is missing.

    A trial of networks that share nothing may count for some of its tasks alone: then that share
    of its cost counts.
    """
    if replicate["trials"].keys() != results.record["tasks"].keys():
        return None
    seconds = 0.0
    steps = NAN
    memory = NAN
    for key in list_trials(replicate):
        trial = results.trials.get(key)
        if trial is None:
            return None
        used = sum(by == key for by in replicate["trials"].values())
        trained = {name.split("/")[0] for name in trial.metrics["val"] if "/" in name}
        share = used / len(trained) if used and trained else 1.0
        seconds += share * trial.seconds
        # what averages an ensemble takes no optimizer steps
        if not isnan(trial.steps):
            steps = share * trial.steps + (0.0 if isnan(steps) else steps)
        if not isnan(trial.memory):
            memory = trial.memory if isnan(memory) else max(memory, trial.memory)
    return seconds, steps, memory


def mean(values: Iterable[float]) -> float:
    """Returns the mean of the values that are known; NaN where none is."""
    known = [value for value in values if not isnan(value)]
    return float(np.mean(known)) if known else NAN


def find_plain_row(results: StudyResults) -> str | None:
    """Returns the row that trains as the base does, but with StaticWeights: the unit of cost.

    It is the tuned fixed weights, whose steps cost just as much, where no row has plain weights.
    """
    record = results.record
    for row in record["rows"]:
        chosen = {BALANCER: row["settings"].get(BALANCER)}
        name = str(chosen[BALANCER]).rpartition(".")[2]
        if row["settings"] == chosen and name == PLAIN and row["role"] != "reference":
            return row["name"]
    return record["baseline"]


def list_tuning(results: StudyResults) -> pd.DataFrame:
    """Returns the settings that were chosen in each row, and among how many."""
    lines: list[tuple[object, ...]] = []
    for row in results.record["rows"]:
        for candidate in row["candidates"]:
            if not (tasks := candidate["chosen"]):
                continue
            rivals = list_rivals(row, candidate, results)
            failed = sum(rival["score"] is None for rival in rivals)
            lines.append(
                (
                    row["name"],
                    candidate["fold"],
                    ", ".join(tasks),
                    len(rivals),
                    failed,
                    json.dumps(candidate["settings"]),
                    candidate["trial"],
                    to_number(candidate["score"]),
                )
            )
    columns = ["row", "fold", "tasks", "tried", "failed", "chosen", "trial", "score"]
    return pd.DataFrame(lines, columns=columns).astype({"fold": "Int64"})


def list_rivals(row: Row, chosen: Candidate, results: StudyResults) -> list[Candidate]:
    """Returns the candidates that competed with the chosen one: those of its fold and its tasks.

    Where each task has trials of its own, candidates of other tasks have no value of this one.
    """
    rivals = []
    for candidate in row["candidates"]:
        trial = results.trials.get(candidate["trial"])
        metrics = trial.metrics["val"] if trial is not None else {}
        has_task = any(key.split("/")[0] in chosen["chosen"] for key in metrics)
        if candidate["fold"] == chosen["fold"] and (has_task or not metrics):
            rivals.append(candidate)
    return rivals
