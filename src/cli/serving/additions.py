"""Sets, intervals and classes by group in the answers of a server, as predict has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf
from typing import TYPE_CHECKING

from torch import Tensor

from src.analysis.fairness.groups import label_rows, name_rows
from src.cli.coverage import name_ends, name_sets, read_coverage
from src.cli.group_decisions import read_run_thresholds
from src.cli.members import Member
from src.cli.terminal import remark
from src.data.tables.row_reader import InputDescription, Problem
from src.errors import UserError
from src.models import MultiTaskModel
from src.tasks import BinaryClassification
from src.tasks.binary import probabilities
from src.tasks.calibration.conformal import Conformal, Method
from src.tasks.group_thresholds import GroupThresholds

if TYPE_CHECKING:
    from src.deployment.serving.service import Addition, Decoded, Words

NO_WORD = "missing"  # the group of rows without a word, as conformity scores name it


class ClassesByGroup:
    """The classes of binary tasks by thresholds that differ by group of rows.

    Where a rule is a mixture, the place of the row in the request settles the draw, as its place in
    a file does in predict.

    Args:
        model: The model.
        found: {task: thresholds}.
    """

    def __init__(self, model: MultiTaskModel, found: Mapping[str, GroupThresholds]) -> None:
        self.model = model
        self.found = found

    @property
    def columns(self) -> list[str]:
        """The columns that tell the group of a row."""
        return list(dict.fromkeys(name for own in self.found.values() for name in own.columns))

    def check(self, words: Words) -> list[Problem]:
        """Returns a problem for each row of a group without a threshold."""
        problems = []
        for task, own in self.found.items():
            for row in range(count_rows(words)):
                of_row = {name: [values[row]] for name, values in words.items()}
                try:
                    own.check(task, find_groups(own, of_row), [row])
                except UserError as error:
                    message = str(error).partition(": ")[2]
                    problems.append(Problem(row, own.columns[0], message))
        return problems

    def change(self, decoded: Decoded, outputs: Mapping[str, Tensor], words: Words) -> None:
        """Replaces the classes of the tasks."""
        for name, own in self.found.items():
            scores = probabilities(outputs[name].squeeze(-1))
            places = range(1, len(scores) + 1)
            yes = own.decide(name, scores, find_groups(own, words), places)
            task = self.model.tasks[name]
            assert isinstance(task, BinaryClassification)
            decoded[name][""] = [task.classes[int(one)] for one in yes.tolist()]


class SetsAndIntervals:
    """Sets of classes and intervals that hold the label with a probability.

    Args:
        conformal: {task: conformity scores}.
        groups: The columns that tell the groups by which rows are compared.
        coverage: The probability.
        method: lac or aps, of sets.
    """

    def __init__(
        self,
        conformal: Mapping[str, Conformal],
        groups: Sequence[str],
        coverage: float,
        method: Method,
    ) -> None:
        self.conformal = conformal
        self.columns = list(groups)
        self.coverage = coverage
        self.method = method

    def check(self, words: Words) -> list[Problem]:
        """Returns nothing: a group without scores has sets of all classes."""
        return []

    def change(self, decoded: Decoded, outputs: Mapping[str, Tensor], words: Words) -> None:
        """Adds the columns of sets and of the ends of intervals."""
        groups = self._name_groups(words) if self.columns else None
        for name, own in self.conformal.items():
            if own.makes_sets:
                chosen = own.sets(outputs[name], self.coverage, self.method, groups)
                decoded[name] |= name_sets(own, chosen.tolist())
            else:
                ends = own.interval(outputs[name], self.coverage, groups)
                columns = name_ends(own, ends.unbind(1))
                # JSON has no infinity
                decoded[name] |= {key: list(map(leave_out_ends, v)) for key, v in columns.items()}

    def _name_groups(self, words: Words) -> list[str]:
        rows = zip(*(words[name] for name in self.columns), strict=True)
        return [" & ".join(NO_WORD if word is None else word for word in row) for row in rows]


def leave_out_ends(value: float) -> float | None:
    """Returns the end of an interval; None where there is none."""
    return None if isinf(value) else value


def find_groups(own: GroupThresholds, words: Words) -> list[str]:
    """Returns the group of each row, as thresholds name it."""
    edges = own.edges
    labels = [label_rows(words[name], edges.get(name, ()), name) for name in own.columns]
    return name_rows(own.columns, labels)


def count_rows(words: Words) -> int:
    """Returns the number of rows."""
    return len(next(iter(words.values()))) if words else 0


def open_additions(member: Member) -> list[Addition]:
    """Returns what stands beside the predictions of a run, as its files and flags say.

    Raises:
        UserError: --coverage is wrong, or the run has no conformity scores.
    """
    cli = member.cli
    found: list[Addition] = []
    thresholds = read_run_thresholds(member.run, member.checkpoint, cli.model)
    if thresholds and cli.config["preference"] is not None:
        remark("thresholds by group are for the run as it was trained: one threshold decides here")
        thresholds = {}
    if thresholds:
        by_group = ClassesByGroup(cli.model, thresholds)
        remark(f"thresholds by group decide: each row must have {', '.join(by_group.columns)}")
        found.append(by_group)
    calibration = read_coverage([member])
    if calibration is not None:
        coverage, sets = cli.config["coverage"], cli.config["sets"]
        conformal = calibration.conformal
        for name in cli.model.tasks:
            if name not in conformal:
                remark(f"--coverage: {name} has no sets or intervals, which the audit explains")
        found.append(SetsAndIntervals(conformal, calibration.groups, coverage, sets))
    return found


def describe_groups(
    additions: Sequence[Addition], inputs: Sequence[InputDescription]
) -> list[InputDescription]:
    """Returns the columns of groups that are no inputs, which a row must have, too."""
    known = {each.name for each in inputs}
    names = dict.fromkeys(name for each in additions for name in each.columns)
    details = "tells the group of the row"
    return [
        InputDescription(name, "category", details, (), None) for name in names if name not in known
    ]
