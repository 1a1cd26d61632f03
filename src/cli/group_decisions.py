"""The decisions of a run whose thresholds differ by group of rows."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import isnan

from torch import Tensor

from src.analysis.fairness.groups import label_rows, name_rows
from src.analysis.fairness.measures import measure_decisions
from src.checkpoint import load_checkpoint
from src.cli.app import CLI
from src.cli.members import Member
from src.cli.passes import predict_checkpoint
from src.cli.rows import sort_rows
from src.cli.terminal import remark
from src.data import MultiTaskDataModule, Split
from src.errors import UserError
from src.files.typed import Damaged
from src.models import MultiTaskModel
from src.run import Run
from src.tasks import BinaryClassification
from src.tasks.binary import probabilities
from src.tasks.calibration.record import CheckpointMark, mark_checkpoint
from src.tasks.group_thresholds import (
    NAME,
    WAY_OUT,
    GroupThresholds,
    read_group_thresholds,
)


def read_run_thresholds(
    run: Run, checkpoint: str, model: MultiTaskModel
) -> dict[str, GroupThresholds]:
    """Returns {task: thresholds by group} of a run; {} where it has none of these weights.

    Args:
        run: The run.
        checkpoint: The checkpoint whose scores are decided on.
        model: The model, which calibrates scores as the run says.

    Raises:
        UserError: The file is damaged, of other tasks, or scores are calibrated in another way.
    """
    path = run.path / NAME
    found = read_group_thresholds(path)
    if not found:
        return {}
    mark = read_mark(checkpoint)
    kept = {}
    for name, own in found.items():
        task = model.tasks.get(name)
        if not isinstance(task, BinaryClassification):
            raise Damaged(path, f"tasks.{name} is no binary task of the run", WAY_OUT)
        if own.fingerprint != mark["fingerprint"]:
            remark(
                f"{path}: the thresholds of {name} by group are of the weights of step {own.step}, "
                f"and these are of step {mark['step']}: one threshold decides for all"
            )
            continue
        if own.calibrator != describe_calibrator(model, name):
            raise UserError(
                f"{path}: {name} is calibrated in another way than when its thresholds by group "
                f"were fitted: fit them anew with src.audit --groups '[{', '.join(own.columns)}]' "
                f"--thresholds {own.constraint}, or remove the file"
            )
        kept[name] = own
    return kept


def read_mark(checkpoint: str) -> CheckpointMark:
    """Returns what tells a checkpoint from others."""
    return mark_checkpoint(load_checkpoint(checkpoint, mmap=True, whole=False))


def describe_calibrator(model: MultiTaskModel, task: str) -> str | None:
    """Returns a short text that tells a task's calibrator from others; None where it has none."""
    calibrator = model.calibration.get(task)
    if calibrator is None:
        return None
    text = json.dumps(calibrator.describe(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class GroupDecisions:
    """The thresholds by group of a run, beside the groups of the rows that they decide on.

    Args:
        data: The data.
        split: The rows.
        found: {task: thresholds}.

    Raises:
        UserError: The rows lack a column of groups, or a row is of an unknown group.
    """

    def __init__(
        self, data: MultiTaskDataModule, split: Split, found: Mapping[str, GroupThresholds]
    ) -> None:
        self.found = found
        self.groups = {task: find_row_groups(data, split, task, own) for task, own in found.items()}
        names: Sequence[object] | None = data.row_info(split).get("id")
        self.names = range(len(data.split(split))) if names is None else names
        for task, own in found.items():
            own.check(task, self.groups[task], self.names)

    def __str__(self) -> str:
        parts = [f"{task} by {' and '.join(own.columns)}" for task, own in self.found.items()]
        return f"thresholds by group decide ({', '.join(parts)}): {NAME} in the run"

    def decide(self, ids: Tensor, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns {task: whether it says yes (N,)}.

        Args:
            ids: (N,) row numbers within the split.
            outputs: {task: (N, 1)}.
        """
        rows = ids.tolist()
        names = [self.names[row] for row in rows]
        decided = {}
        for task, own in self.found.items():
            scores = probabilities(outputs[task].squeeze(-1).cpu())
            groups = [self.groups[task][row] for row in rows]
            decided[task] = own.decide(task, scores, groups, names)
        return decided


def find_row_groups(
    data: MultiTaskDataModule, split: Split, task: str, own: GroupThresholds
) -> list[str]:
    """Returns the group of each row of a split, as thresholds name it.

    Raises:
        UserError: The rows lack a column of groups.
    """
    labels = []
    for column in own.columns:
        try:
            words = data.column_words(split, column)
        except UserError as error:
            raise UserError(f"{error} ({task}'s thresholds by group need it)") from None
        labels.append(label_rows(words, own.edges.get(column, ()), column))
    return name_rows(own.columns, labels)


def open_decisions(cli: CLI, members: Sequence[Member], split: Split) -> GroupDecisions | None:
    """Returns the thresholds by group that decide on rows; None where one threshold does.

    Several runs are averaged by one threshold for all groups.

    Args:
        cli: Data and model.
        members: The runs.
        split: The rows.
    """
    found = read_run_thresholds(members[0].run, members[0].checkpoint, cli.model)
    if not found:
        return None
    if len(members) > 1 or cli.config["preference"] is not None:
        remark("thresholds by group are for one run as it was trained: one threshold decides here")
        return None
    decisions = GroupDecisions(cli.datamodule, split, found)
    remark(str(decisions))
    return decisions


def name_classes(cli: CLI, decided: Mapping[str, Tensor]) -> dict[str, list[object]]:
    """Returns {task: the class of each row} from {task: whether it says yes (N,)}."""
    classes: dict[str, list[object]] = {}
    for name, own in decided.items():
        task = cli.model.tasks[name]
        assert isinstance(task, BinaryClassification)
        classes[name] = [task.classes[int(yes)] for yes in own.tolist()]
    return classes


def evaluate_decisions(
    cli: CLI, member: Member, split: Split, metrics: Mapping[str, float]
) -> dict[str, float]:
    """Returns metrics with the values that thresholds by group give, where a run has some.

    That takes one more pass over the rows.

    Args:
        cli: Data, model and trainer.
        member: The run.
        split: The rows.
        metrics: {split/task/metric: value} by one threshold for all.
    """
    decisions = open_decisions(cli, [member], split)
    if decisions is None:
        return dict(metrics)
    data = cli.datamodule
    asked = data.predict_split
    data.predict_split = split
    ids, outputs = sort_rows(predict_checkpoint(cli, member.checkpoint))
    data.predict_split = asked

    rows = data.split(split)[ids]
    changed = dict(metrics)
    for name, decided in decisions.decide(ids, outputs).items():
        task = cli.model.tasks[name]
        assert isinstance(task, BinaryClassification)
        values = measure_decisions(task, decided, rows.targets[name], rows.weights.get(name))
        changed |= {f"{split}/{name}/{key}": value for key, value in values.items()}
    changed[f"{split}/score"] += measure_rise(cli, split, metrics, changed)
    return changed


def measure_rise(
    cli: CLI, split: Split, metrics: Mapping[str, float], changed: Mapping[str, float]
) -> float:
    """Returns by how much the score of a run rises as the values of its binary tasks change."""
    weights = cli.model.score_weights
    counted = 0.0
    rise = 0.0
    for name, task in cli.model.tasks.items():
        key = f"{split}/{name}/{task.monitor}"
        if isnan(metrics[key]):
            continue
        counted += weights[name]
        sign = -1 if task.prefers_less(task.monitor) else 1
        rise += sign * weights[name] * (changed[key] - metrics[key])
    return rise / counted if counted else 0.0
