"""The rows of a run by group, with the outputs and labels of its tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from src.analysis.fairness.coverage import find_covered
from src.analysis.fairness.groups import (
    Group,
    check_values,
    find_edges,
    label_rows,
    list_groups,
    order_values,
)
from src.analysis.fairness.measures import TaskRows
from src.batch import Batch
from src.cli.auditing.calibration_rows import name_groups
from src.cli.calibrated import read_own_calibration
from src.cli.group_decisions import GroupDecisions, read_run_thresholds
from src.cli.loaded_run import LoadedRun
from src.data import MultiTaskDataModule, Split
from src.errors import UserError

FEWEST_BINS = 2


@dataclass(frozen=True)
class GroupColumns:
    """How columns are cut into groups.

    Attributes:
        edges: {column: where its numbers are cut; () where its words are the groups}.
        values: {column: its groups, in the order that they are shown in}.
    """

    edges: Mapping[str, tuple[float, ...]]
    values: Mapping[str, list[str]]

    def label(self, data: MultiTaskDataModule, split: Split) -> dict[str, list[str]]:
        """Returns {column: the group of each row of a split}."""
        labels = {}
        for column, edges in self.edges.items():
            labels[column] = label_rows(data.column_words(split, column), edges, column)
        return labels

    def list(self, data: MultiTaskDataModule, split: Split) -> list[Group]:
        """Returns all rows of a split, and its groups, see :func:`list_groups`."""
        return list_groups(self.label(data, split), self.values)


def read_columns(
    data: MultiTaskDataModule, split: Split, columns: Sequence[str], bins: int | None
) -> GroupColumns:
    """Reads columns of groups; numbers are cut by the run's training rows, or by new rows alone.

    Args:
        data: The data.
        split: The rows that are audited.
        columns: The names of the columns.
        bins: Ranges of a column of numbers; None: four, where there are many numbers.

    Raises:
        UserError: The data have no such column, or it tells no groups.
    """
    if not columns:
        raise UserError("--groups is empty: name columns, as in --groups '[sex]'")
    for column in columns:
        if list(columns).count(column) > 1:
            raise UserError(f"--groups names '{column}' twice")
    if bins is not None and bins < FEWEST_BINS:
        raise UserError(f"--group_bins is {bins}; at least {FEWEST_BINS} ranges can be compared")

    edges = {}
    values = {}
    for column in columns:
        words = data.column_words(split, column)
        # the same groups in every split, and in other runs on the same data
        training = words if data.is_new else data.column_words("train", column)
        edges[column] = find_edges(training, bins)
        labels = label_rows([*training, *words], edges[column], column)
        values[column] = order_values(labels, edges[column])
        check_values(column, values[column])
    return GroupColumns(edges, values)


def load_task_rows(run: LoadedRun, split: Split, by_group: bool = True) -> dict[str, TaskRows]:
    """Returns {task: its outputs and labels for all rows of a split}.

    Args:
        run: The run.
        split: The rows.
        by_group: Whether thresholds by group decide, where the run has some.

    Raises:
        UserError: The run has no such rows, or thresholds by group lack their column.
    """
    rows = run.load_rows(split)
    outputs = run.predict(rows.inputs)
    decided = {}
    found = read_run_thresholds(run.run, run.member.checkpoint, run.model) if by_group else {}
    if found:
        decided = GroupDecisions(run.data, split, found).decide(rows.ids, outputs)
    covered = find_covered_rows(run, split, rows, outputs)
    tasks = {}
    for name, task in run.tasks.items():
        tasks[name] = TaskRows(
            name,
            task,
            outputs[name].cpu(),
            rows.targets[name],
            rows.weights.get(name),
            decided.get(name),
            covered.get(name),
        )
    return tasks


def find_covered_rows(
    run: LoadedRun, split: Split, rows: Batch, outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns {task: which labels lie in their conformal set or interval (N, L)}.

    Args:
        run: The run; without conformity scores there is nothing to return.
        split: The split of the rows.
        rows: The rows.
        outputs: {task: their outputs}.
    """
    calibration = read_own_calibration(run.run, run.member.checkpoint, run.model)
    if calibration is None:
        return {}
    groups = None
    if calibration.groups:
        groups = name_groups(run.data, split, calibration.groups)
    found = {}
    for name, conformal in calibration.conformal.items():
        found[name] = find_covered(conformal, outputs[name].cpu(), rows.targets[name], groups)
    return found
