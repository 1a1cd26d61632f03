"""The file of a run's calibration, calibration.json, which is read without running any code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import Count, Damaged, read_json, to_json
from src.tasks.calibration.calibrators import Calibrator, restore_calibrator
from src.tasks.task import Task

WAY_OUT = "remove it for outputs as the network gives them, or calibrate anew"


class TaskEntry(TypedDict):
    """What calibration.json holds of a task.

    Attributes:
        rows: The labelled rows that it was fitted on.
        calibrator: What :meth:`Calibrator.describe` says; None where there is no map.
    """

    rows: Count
    calibrator: NotRequired[dict[str, Any] | None]


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
    tasks: dict[str, TaskEntry]


@dataclass(frozen=True)
class Calibration:
    """The calibration of a run.

    Attributes:
        checkpoint: The weights that it belongs to.
        calibrators: {task: its map}; a task that has none keeps its outputs.
        rows: {task: the labelled rows that it was fitted on}.
    """

    checkpoint: CheckpointMark
    calibrators: Mapping[str, Calibrator]
    rows: Mapping[str, int]

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
    for name, entry in content["tasks"].items():
        if name not in tasks:
            raise Damaged(path, f"tasks.{name} is no task of the run", WAY_OUT)
        described = entry.get("calibrator")
        if described is None:
            continue
        try:
            calibrators[name] = restore_calibrator(described, tasks[name])
        except UserError as error:
            raise Damaged(path, f"tasks.{name}.calibrator: {error}", WAY_OUT) from None
    rows = {name: entry["rows"] for name, entry in content["tasks"].items()}
    return Calibration(content["checkpoint"], calibrators, rows)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes a run's calibration, whole or not at all."""
    tasks: dict[str, TaskEntry] = {}
    for name, rows in calibration.rows.items():
        calibrator = calibration.calibrators.get(name)
        described = None if calibrator is None else calibrator.describe()
        tasks[name] = {"rows": rows, "calibrator": described}
    content = {"checkpoint": calibration.checkpoint, "tasks": tasks}
    write_atomically(path, lambda file: file.write(to_json(content)))
