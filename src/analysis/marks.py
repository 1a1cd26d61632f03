"""Marks on a report: what a reader must know before believing its numbers."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.analysis.record import Replicate
from src.analysis.results import StudyResults, TrialResults
from src.analysis.scores import Scores
from src.errors import in_one_line

SHOWN = 3  # trials, and states that differ, that a mark names


def list_marks(results: StudyResults, scores: Scores) -> list[str]:
    """Returns the marks of a study, one sentence each."""
    return [
        *mark_missing(results),
        *mark_failures(results),
        *mark_origins(results),
        *mark_undefined(scores),
        *mark_small_units(scores),
    ]


def mark_missing(results: StudyResults) -> list[str]:
    """Says where the study is unfinished, and which rows lack replicates."""
    record = results.record
    marks = []
    if not record["finished"]:
        open_ones = [
            trial["status"]
            for trial in record["trials"].values()
            if trial["status"] in ("planned", "running", "interrupted")
        ]
        counts = [f"{open_ones.count(word)} {word}" for word in dict.fromkeys(open_ones)]
        how = f" ({', '.join(counts)})" if counts else ""
        marks.append(
            f"The study is unfinished{how}: this report is partial; run `{record['command']}` "
            "again to go on."
        )

    folds = record["folds"] or 1
    for row in record["rows"]:
        # a reference knows no seed
        is_reference = row["role"] == "reference"
        wanted = folds * (1 if is_reference else len(record["seeds"]))
        whole = [one for one in row["replicates"] if is_tested(results, one)]
        found = len({one["fold"] for one in whole}) if is_reference else len(whole)
        if found < wanted:
            marks.append(f"{row['name']} has {found} of {wanted} replicates.")
    if results.lost:
        marks.append(
            f"The run folders of {len(results.lost)} trials of tuning are gone; their validation "
            f"metrics are left out ({name_trials(results, results.lost)})."
        )
    return marks


def is_tested(results: StudyResults, replicate: Replicate) -> bool:
    """Returns whether every task of a replicate has its test metrics."""
    for task in results.record["tasks"]:
        trial = results.trials.get(replicate["trials"].get(task, ""))
        if trial is None or not trial.metrics["test"]:
            return False
    return True


def mark_failures(results: StudyResults) -> list[str]:
    """Gives the line of each trial that has failed."""
    marks = []
    for key, trial in results.record["trials"].items():
        if trial["status"] == "failed" and key in results.users:
            line = in_one_line(trial["error"] or "it has not said why").rstrip(".")
            marks.append(f"{results.users[key][0]} failed: {line}.")
    return marks


def mark_origins(results: StudyResults) -> list[str]:
    """Says where trials were made from different code, data, packages or systems."""
    marks = mark_difference(results, "states of the code", read_code)
    marks += mark_difference(results, "contents of the data files", read_data)
    packages: dict[str, None] = {}
    for trial in results.trials.values():
        packages |= dict.fromkeys(trial.record.get("versions") or {})
    for package in packages:
        marks += mark_difference(
            results, f"versions of {package}", partial(read_version, package=package)
        )
    return marks + mark_difference(results, "versions of Python", read_python)


def mark_difference(
    results: StudyResults, words: str, read: Callable[[TrialResults], str | None]
) -> list[str]:
    """Says which trials differ from most others.

    Args:
        results: The study.
        words: The subject, in the plural.
        read: Returns its state in a trial; None where that is not known.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for key, trial in results.trials.items():
        if (state := read(trial)) is not None:
            groups[state].append(key)
    if len(groups) < 2:
        return []
    most, *others = sorted(groups, key=lambda state: -len(groups[state]))
    parts = [f"{most} ({len(groups[most])})"]
    for state in others[:SHOWN]:
        keys = groups[state]
        parts.append(f"{state} ({len(keys)}: {name_trials(results, keys)})")
    if len(others) > SHOWN:
        parts.append(f"{len(others) - SHOWN} more")
    return [f"Trials were made with {len(groups)} {words}: {'; '.join(parts)}."]


def name_trials(results: StudyResults, keys: list[str]) -> str:
    """Names some trials by the places that use them."""
    names = list(dict.fromkeys(results.users[key][0] for key in keys))
    more = f"; {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more


def read_code(trial: TrialResults) -> str | None:
    """Returns the commits of a trial's sessions, None where they are not known.

    A commit with changes below src and configs has a hash of them.
    """
    states: dict[str, None] = {}
    for session in trial.record.get("sessions", []):
        git = session.get("git") or {}
        if not git.get("commit"):
            continue
        state = f"commit {git['commit'][:7]}"
        changes = read_changes(trial.path / Path(git["diff"]).name) if git.get("diff") else b""
        if changes:
            state += f" with changes {hashlib.sha256(changes).hexdigest()[:7]}"
        states[state] = None
    return ", then ".join(states) or None


def read_changes(path: Path) -> bytes:
    """Returns the sections of a patch that change what runs: files below src and configs."""
    try:
        patch = path.read_bytes()
    except OSError:
        return b""
    sections = re.split(rb"(?m)^(?=diff --git )", patch)
    return b"".join(s for s in sections if re.match(rb"diff --git \S+/(src|configs)/", s))


def read_data(trial: TrialResults) -> str | None:
    """Returns a short hash of the data files of a trial, wherever they lie; None without files."""
    found = sorted(find_hashes(trial.record.get("data")))
    if not found:
        return None
    return f"files {hashlib.sha256(' '.join(found).encode()).hexdigest()[:7]}"


def read_version(trial: TrialResults, package: str) -> str | None:
    """Returns the version of a package in a trial; None where that is not known."""
    found = (trial.record.get("versions") or {}).get(package)
    return None if found is None else str(found)


def read_python(trial: TrialResults) -> str | None:
    """Returns the version of Python in a trial; None where that is not known."""
    found = trial.record.get("python")
    return None if found is None else str(found)


def find_hashes(data: object) -> list[str]:
    """Returns the hashes of all files in a fingerprint, at any depth."""
    if not isinstance(data, Mapping):
        return []
    content: dict[str, Any] = dict(data)
    if isinstance(content.get("sha256"), str):
        return [content["sha256"]]
    return [found for value in content.values() for found in find_hashes(value)]


def mark_undefined(scores: Scores) -> list[str]:
    """Says which metrics count nowhere, or are missing in some replicates of a row."""
    marks = []
    if scores.unit is not None:
        for column in np.flatnonzero(~scores.counted):
            task, metric = scores.columns[column]
            name = scores.rows[scores.unit]
            marks.append(f"{task} {metric} is not in delta: it is zero or not defined in {name}.")
    for row, name in enumerate(scores.rows):
        known = ~np.isnan(scores.values[row])
        # a replicate without any value is missing, which other marks say
        present = known.any(1)
        for column in np.flatnonzero((~known[present]).any(0) & scores.counted):
            task, metric = scores.columns[column]
            lacks = int((~known[present][:, column]).sum())
            marks.append(
                f"{name} has no {task} {metric} in {lacks} of {present.sum()} replicates, which "
                "leaves them out of delta."
            )
    return marks


def mark_small_units(scores: Scores) -> list[str]:
    """Says where percentages mean little: the value they refer to is not told from zero."""
    if scores.unit is None:
        return []
    marks = []
    for column, (task, metric) in enumerate(scores.columns):
        estimate = scores.estimate_value(scores.unit, column)
        if scores.counted[column] and estimate.low <= 0 <= estimate.high:
            marks.append(
                f"Percentages of {task} {metric} mean little: {scores.rows[scores.unit]} has "
                f"{estimate.mean:.3g}, which its interval does not tell from zero."
            )
    return marks
