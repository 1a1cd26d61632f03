"""Thresholds of a binary task by group of rows, as a run keeps them: numbers, and no code."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict
from zlib import crc32

import torch
from torch import Tensor

from src.errors import UserError, suggest_or_list
from src.files.atomic import write_atomically
from src.files.typed import Count, Such, read_json, to_json
from src.rng import draw_uniform_at

NAME = "thresholds.json"
WAY_OUT = "remove it to decide by one threshold for all"
Constraint = Literal["EqualizedOdds", "DemographicParity"]
Share = Annotated[float, Such("from 0 to 1", lambda value: 0 <= value <= 1)]
# beyond all probabilities, since JSON has no infinity
NEVER, ALWAYS = 2.0, -1.0


@dataclass(frozen=True)
class Operation:
    """A comparison of a probability with a threshold.

    Attributes:
        operator: Whether a probability above the threshold is a yes, or one below it.
        threshold: The threshold; -1 is below all probabilities, and 2 above all.
    """

    operator: Literal[">", "<"]
    threshold: float

    def decide(self, scores: Tensor) -> Tensor:
        """Returns whether each probability (N,) is a yes."""
        return scores > self.threshold if self.operator == ">" else scores < self.threshold


@dataclass(frozen=True)
class GroupRule:
    """The rule that turns probabilities of a group's rows into chances of a yes.

    A chance is p_ignore x prediction_constant + (1 - p_ignore) x (p0 x [first operation] + p1 x
    [second operation]): a mixture of two thresholds meets a rate that no single one does (Hardt,
    Price and Srebro, "Equality of opportunity in supervised learning", NeurIPS 2016).

    Attributes:
        p_ignore: Share of rows that are decided without a look at them.
        prediction_constant: Share of yes among these.
        p0: Share of the other rows that the first operation decides.
        operation0: The first operation.
        p1: Share that the second one decides.
        operation1: The second operation.
    """

    p_ignore: Share
    prediction_constant: Share
    p0: Share
    operation0: Operation
    p1: Share
    operation1: Operation

    def compute_chances(self, scores: Tensor) -> Tensor:
        """Returns the chance of a yes for each probability (N,)."""
        mixture = self.p0 * self.operation0.decide(scores).double()
        mixture = mixture + self.p1 * self.operation1.decide(scores).double()
        return self.p_ignore * self.prediction_constant + (1 - self.p_ignore) * mixture


@dataclass(frozen=True)
class GroupThresholds:
    """The thresholds of a binary task by group, and how they were found.

    Attributes:
        constraint: EqualizedOdds or DemographicParity.
        objective: What was as high as the constraint lets it be, on the rows.
        columns: The columns that tell the groups.
        edges: {column: where its numbers are cut into ranges}.
        groups: {name of a group, its values with commas between them: its rule}.
        seed: Seed of the draws of rows whose chance is neither 0 nor 1.
        rows: The number of validation rows that they were fitted on.
        step: The optimizer step of the weights that gave the probabilities.
        fingerprint: What tells these weights from others.
        calibrator: What tells the calibrator of the probabilities from others; None without one.
    """

    constraint: Constraint
    objective: str
    columns: tuple[str, ...]
    edges: dict[str, tuple[float, ...]]
    groups: dict[str, GroupRule]
    seed: int
    rows: Count
    step: Count
    fingerprint: str
    calibrator: str | None

    def decide(
        self, task: str, scores: Tensor, groups: Sequence[str], names: Sequence[object]
    ) -> Tensor:
        """Returns the decision (N,) for each row.

        Where a rule is a mixture, the row's name and the seed settle the draw: the same row gets
        the same answer in each command, whatever stands beside it.

        Args:
            task: The task's name.
            scores: (N,) fp64 probabilities.
            groups: The group of each row.
            names: The name of each row.

        Raises:
            UserError: A row is of a group without a rule.
        """
        self.check(task, groups, names)
        chances = torch.zeros(len(scores), dtype=torch.float64)
        for group in dict.fromkeys(groups):
            inside = torch.tensor([own == group for own in groups])
            chances[inside] = self.groups[group].compute_chances(scores[inside].double().cpu())
        return chances > draw_for_rows(self.seed, task, names)

    def check(self, task: str, groups: Sequence[str], names: Sequence[object]) -> None:
        """Refuses rows of a group without a rule.

        Args:
            task: The task's name.
            groups: The group of each row.
            names: The name of each row.

        Raises:
            UserError: There is one.
        """
        for group in dict.fromkeys(groups):
            if group not in self.groups:
                row = names[groups.index(group)]
                raise UserError(
                    f"row {row}: {' and '.join(self.columns)} is '{group}', a group that {task} "
                    f"has no threshold for; {suggest_or_list(group, self.groups)}"
                )


def draw_for_rows(seed: int, task: str, names: Sequence[object]) -> Tensor:
    """Returns a uniform number (N,) for each row, as a function of the seed, the task and its name.

    A row without a name takes its place.
    """
    places = []
    for place, name in enumerate(names):
        text = f"row {place}" if name is None else str(name)
        digest = hashlib.sha256(text.encode()).digest()
        places.append(int.from_bytes(digest[:8], "little", signed=True))
    key = seed % 2**30 * 2**32 + crc32(task.encode())
    return draw_uniform_at(key, torch.tensor(places, dtype=torch.int64))


class Content(TypedDict):
    """The content of the file."""

    tasks: dict[str, GroupThresholds]


# -- the file --------------------------------------------------------------------------------------
def write_group_thresholds(path: Path, found: Mapping[str, GroupThresholds]) -> None:
    """Writes {task: its thresholds} as JSON."""
    content = {"tasks": {name: asdict(own) for name, own in found.items()}}
    write_atomically(path, lambda file: file.write(to_json(content)))


def read_group_thresholds(path: Path) -> dict[str, GroupThresholds]:
    """Reads {task: its thresholds}; {} where there is no file.

    Raises:
        Damaged: The file does not hold what it must.
    """
    if not path.is_file():
        return {}
    content = read_json(path, Content, WAY_OUT)
    return {name: restore(own) for name, own in content["tasks"].items()}


def restore(plain: Mapping[str, Any]) -> GroupThresholds:
    """Returns thresholds from the plain values of a file, whose types are checked."""
    groups = {}
    for name, rule in plain["groups"].items():
        operations = {key: Operation(**rule[key]) for key in ("operation0", "operation1")}
        groups[name] = GroupRule(**{**rule, **operations})
    edges = {column: tuple(cuts) for column, cuts in plain["edges"].items()}
    columns = tuple(plain["columns"])
    return GroupThresholds(**{**plain, "columns": columns, "edges": edges, "groups": groups})
