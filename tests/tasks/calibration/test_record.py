"""The file of a calibration: written and read, and of a stranger."""

import json
from pathlib import Path

import pytest
import torch

from src.files.typed import Damaged
from src.tasks import BinaryClassification, Regression, Task
from src.tasks.calibration.calibrators import Platt
from src.tasks.calibration.conformal import score_rows
from src.tasks.calibration.record import (
    Calibration,
    CheckpointMark,
    read_calibration,
    read_conformal,
    write_calibration,
)

TASKS: dict[str, Task] = {
    "a": BinaryClassification(classes=("no", "yes")),
    "y": Regression(names=("u", "v"), mean=(0.0, 0.0), std=(1.0, 2.0)),
}
MARK: CheckpointMark = {"epoch": 1, "step": 2, "fingerprint": "f"}


def make_calibration() -> Calibration:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(20, 2, generator=generator)
    shares = torch.rand(20, 2, generator=generator)
    words = ["F" if k % 2 else "M" for k in range(20)]
    conformal = score_rows(TASKS["y"], outputs, torch.randn(20, 2), shares, words)
    return Calibration(
        MARK, {"a": 18, "y": 20}, {"a": Platt((2.0,), (0.5,))}, {"y": conformal}, ("sex",)
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    assert read_calibration(path, TASKS) is None
    written = make_calibration()
    write_calibration(path, written)
    assert read_calibration(path, TASKS) == written


def test_scores_of_other_weights_are_none(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    assert read_conformal(path, TASKS, {"epoch": 1, "global_step": 2}) == {}
    write_calibration(path, make_calibration())
    assert read_conformal(path, TASKS, {"epoch": 1, "global_step": 2}) == {}


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("checkpoint",), None, "checkpoint is missing"),
        (("tasks", "a", "rows"), -1, "where a whole number"),
        (("tasks", "a", "calibrator", "slopes"), [2.0, 1.0], "none of a BinaryClassification"),
        (("tasks", "y", "conformal", "scores", "residual"), [], "scores of 0 labels, where 2"),
        (("tasks", "y", "conformal", "groups", "F"), {}, "has none, where a task has residual"),
        (("groups",), "sex", "groups is 'sex'"),
    ],
)
def test_a_file_of_a_stranger(
    tmp_path: Path, place: tuple[str, ...], value: object, says: str
) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, make_calibration())
    content = json.loads(path.read_text())
    entry = content
    for key in place[:-1]:
        entry = entry[key]
    if value is None:
        del entry[place[-1]]
    else:
        entry[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(Damaged, match=says):
        read_calibration(path, TASKS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"values": [3.0, 1.0]}, "in rising order"),
        ({"values": [1.0, 2.0, 3.0], "rows": 2}, "more scores than rows"),
        ({"values": [], "rows": 2}, "rows without scores"),
    ],
)
def test_scores_of_a_stranger(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, make_calibration())
    content = json.loads(path.read_text())
    content["tasks"]["y"]["conformal"]["scores"]["residual"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(Damaged, match=says):
        read_calibration(path, TASKS)
