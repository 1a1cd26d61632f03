"""The file of a run's calibration, calibration.json, which is read without running any code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, cast

from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import Count, Damaged, Such, read_json, to_json
from src.tasks.calibration.calibrators import Calibrator, restore_calibrator
from src.tasks.calibration.conformal import ByMethod, Conformal, Method, Scores, list_methods
from src.tasks.task import Task

WAY_OUT = "remove it; python -m src.audit --calibrate then makes another"


def is_sorted(values: Any) -> bool:
    """Returns whether a list of numbers rises."""
    return all(a <= b for a, b in pairwise(values))


class ScoresEntry(TypedDict):
    """Conformity scores of one label or output, see :class:`Scores`."""

    rows: Count
    values: Annotated[list[float], Such("in rising order", is_sorted)]


class ConformalEntry(TypedDict):
    """The conformity scores of a task: {method: one entry for each label or output}."""

    scores: dict[str, list[ScoresEntry]]
    groups: dict[str, dict[str, list[ScoresEntry]]]


class TaskEntry(TypedDict):
    """The entry of a task in calibration.json.

    Attributes:
        rows: The labelled rows that it was fitted on.
        calibrator: What :meth:`Calibrator.describe` says, where there is a map.
        conformal: The conformity scores, where there are some.
    """

    rows: Count
    calibrator: NotRequired[dict[str, Any]]
    conformal: NotRequired[ConformalEntry]


class CheckpointMark(TypedDict):
    """The weights that a calibration belongs to.

    Attributes:
        epoch: The epoch of the checkpoint.
        step: Its optimizer step.
        fingerprint: See :func:`mark_checkpoint`.
    """

    epoch: Count
    step: Count
    fingerprint: str


class CalibrationFile(TypedDict):
    """The content of calibration.json."""

    checkpoint: CheckpointMark
    groups: NotRequired[list[str]]
    tasks: dict[str, TaskEntry]


@dataclass(frozen=True)
class Calibration:
    """The calibration of a run.

    Attributes:
        checkpoint: The weights that it belongs to.
        rows: {task: the labelled validation rows that it was fitted on}.
        calibrators: {task: its map}; a task that has none keeps its outputs.
        conformal: {task: its conformity scores}, of calibrated outputs.
        groups: The columns by which conformity scores are compared; empty for all rows together.
    """

    checkpoint: CheckpointMark
    rows: Mapping[str, int]
    calibrators: Mapping[str, Calibrator]
    conformal: Mapping[str, Conformal] = field(default_factory=dict)
    groups: tuple[str, ...] = ()

    def fits(self, checkpoint: Mapping[str, Any]) -> bool:
        """Returns whether it was fitted on the weights of this checkpoint."""
        return mark_checkpoint(checkpoint)["fingerprint"] == self.checkpoint["fingerprint"]


def mark_checkpoint(checkpoint: Mapping[str, Any]) -> CheckpointMark:
    """Returns what tells a checkpoint from others, without reading its tensors.

    The fingerprint is one of its step, its tasks with their thresholds, and the metrics of its
    validation, to the last digit.

    Args:
        checkpoint: The checkpoint, as ``load_checkpoint`` gives it.
    """
    keys = ("epoch", "global_step", "task_steps", "metrics", "tasks")
    read = {key: checkpoint.get(key) for key in keys}
    text = json.dumps(read, sort_keys=True, default=str)
    return {
        "epoch": checkpoint["epoch"],
        "step": checkpoint["global_step"],
        "fingerprint": sha256(text.encode()).hexdigest()[:16],
    }


def read_calibration(path: Path, tasks: Mapping[str, Task]) -> Calibration | None:
    """Reads a run's calibration; None where there is none.

    Args:
        path: The file, which may come from a stranger.
        tasks: {name: task} of the run.

    Raises:
        Damaged: It is no calibration, or one of other tasks.
    """
    if not path.is_file():
        return None
    content = cast(CalibrationFile, read_json(path, CalibrationFile, WAY_OUT))
    calibrators: dict[str, Calibrator] = {}
    conformal: dict[str, Conformal] = {}
    for name, entry in content["tasks"].items():
        if name not in tasks:
            raise Damaged(path, f"tasks.{name} is no task of the run", WAY_OUT)
        described = entry.get("calibrator")
        scores = entry.get("conformal")
        try:
            if described is not None:
                calibrators[name] = restore_calibrator(described, tasks[name])
            if scores is not None:
                conformal[name] = restore_conformal(scores, tasks[name])
        except UserError as error:
            raise Damaged(path, f"tasks.{name}: {error}", WAY_OUT) from None
    rows = {name: entry["rows"] for name, entry in content["tasks"].items()}
    columns = tuple(content.get("groups", ()))
    return Calibration(content["checkpoint"], rows, calibrators, conformal, columns)


def read_conformal(
    path: Path, tasks: Mapping[str, Task], checkpoint: Mapping[str, Any]
) -> dict[str, Conformal]:
    """Returns {task: its conformity scores}, of a run that has some of these weights.

    Args:
        path: The file of the run's calibration.
        tasks: {name: task} of the run.
        checkpoint: The checkpoint whose weights predict.

    Raises:
        Damaged: The file is.
    """
    calibration = read_calibration(path, tasks)
    if calibration is None or not calibration.fits(checkpoint):
        return {}
    return dict(calibration.conformal)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes a run's calibration, whole or not at all."""
    tasks: dict[str, TaskEntry] = {}
    for name, rows in calibration.rows.items():
        entry: TaskEntry = {"rows": rows}
        if name in calibration.calibrators:
            entry["calibrator"] = calibration.calibrators[name].describe()
        if name in calibration.conformal:
            entry["conformal"] = describe_conformal(calibration.conformal[name])
        tasks[name] = entry
    content = {
        "checkpoint": calibration.checkpoint,
        "groups": list(calibration.groups),
        "tasks": tasks,
    }
    write_atomically(path, lambda file: file.write(to_json(content)))


# -- conformity scores -----------------------------------------------------------------------------
def describe_conformal(conformal: Conformal) -> ConformalEntry:
    """Returns conformity scores as plain values."""
    groups = {group: describe_scores(scores) for group, scores in conformal.groups.items()}
    return {"scores": describe_scores(conformal.scores), "groups": groups}


def describe_scores(scores: ByMethod) -> dict[str, list[ScoresEntry]]:
    """Returns the scores of each method as plain values."""
    described: dict[str, list[ScoresEntry]] = {}
    for method, many in scores.items():
        described[method] = [{"rows": one.rows, "values": list(one.values)} for one in many]
    return described


def restore_conformal(entry: ConformalEntry, task: Task) -> Conformal:
    """Returns the conformity scores of a task.

    Raises:
        UserError: They are none of such a task.
    """
    scores = restore_scores(entry["scores"], task)
    groups = {group: restore_scores(found, task) for group, found in entry["groups"].items()}
    return Conformal(task, scores, groups)


def restore_scores(described: Mapping[str, list[ScoresEntry]], task: Task) -> ByMethod:
    """Returns the scores of each method, one for each label or output of a task.

    Raises:
        UserError: They are none of such a task.
    """
    methods = list_methods(task)
    if not methods or set(described) != set(methods):
        expected = " and ".join(methods) or "no conformity scores"
        raise UserError(f"has {', '.join(described) or 'none'}, where a task has {expected}")
    count = task.values_per_label
    found: dict[Method, tuple[Scores, ...]] = {}
    for method in methods:
        entries = described[method]
        if len(entries) != count:
            raise UserError(f"{method} has scores of {len(entries)} labels, where {count} belong")
        for one in entries:
            if len(one["values"]) > one["rows"]:
                raise UserError(f"{method} has more scores than rows")
            if one["rows"] and not one["values"]:
                raise UserError(f"{method} has rows without scores")
        found[method] = tuple(Scores(one["rows"], tuple(one["values"])) for one in entries)
    return found
