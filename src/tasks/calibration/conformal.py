"""Conformal prediction: sets and intervals that hold the label with a stated probability.

Each validation row has a score, which says how badly its label agrees with the prediction. Of n
rows the k-th smallest score with k = ceil((n + 1) c) is one that a new row's label keeps below with
a probability of at least c, if new rows are drawn as the n rows were (split conformal prediction;
Vovk, Gammerman and Shafer 2005; Lei et al., JASA 2018). So a set holds all classes, and an interval
all numbers, whose score would be at most that one.

Scores:
    lac        1 - p(label): the smallest sets on average, some of them empty (Sadinle, Lei and
               Wasserman, JASA 2019).
    aps        The sum of the probabilities of all classes before the label, from the most probable
               one on, plus a share of the label's own that is drawn at random: larger sets where
               the network doubts (Romano, Sesia and Candes, NeurIPS 2020). A set holds all classes
               whose sum before them is at most the threshold, and is never empty.
    residual   |y - prediction|, in the label's own unit.
    cqr        max(lowest quantile - y, y - highest quantile), in the label's own unit (Romano,
               Patterson and Candes, NeurIPS 2019).

With groups, rows are compared with the validation rows of their own group alone (Mondrian; Vovk
2012), so that each group is covered. All rows count alike, whatever they weigh.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Literal

import torch
from torch import Tensor

from src.errors import UserError
from src.tasks.binary import BinaryClassification
from src.tasks.calibration.probabilities import compute_probabilities
from src.tasks.classification import Classification
from src.tasks.labels import is_labelled
from src.tasks.multilabel import MultilabelClassification
from src.tasks.quantiles import Quantiles
from src.tasks.regression import Regression
from src.tasks.segmentation import Segmentation
from src.tasks.sequence_labelling import SequenceLabelling
from src.tasks.task import Task

Method = Literal["lac", "aps", "residual", "cqr"]
SETS: tuple[Method, ...] = ("lac", "aps")
KEPT = 5000  # scores of a long list
# where (n + 1) coverage is a whole number, rounding must not lift it above
DUST = 1e-9


@dataclass(frozen=True)
class Scores:
    """Conformity scores of n rows, sorted; of very many rows a part.

    Attributes:
        rows: The number n of rows.
        values: K of the scores, of the ranks ceil(n j / K) for j = 1 ... K.
    """

    rows: int
    values: tuple[float, ...]

    @classmethod
    def of(cls, scores: Tensor) -> "Scores":
        """Keeps the scores (n,) of rows, NaN where a label is missing."""
        known = scores.double()
        known = known[~known.isnan()].sort().values
        n = len(known)
        if n > KEPT:
            ranks = [ceil(n * j / KEPT) - 1 for j in range(1, KEPT + 1)]
            known = known[torch.tensor(ranks)]
        return cls(n, tuple(known.tolist()))

    def threshold(self, coverage: float) -> float:
        """Returns the score of rank ceil((n + 1) coverage); infinite where n is too small.

        Where a part of the scores is kept, it is the next one of these.
        """
        rank = ceil((self.rows + 1) * coverage - DUST)
        if rank > self.rows:
            return inf
        return self.values[ceil(rank * len(self.values) / self.rows) - 1]


ByMethod = Mapping[Method, tuple[Scores, ...]]


@dataclass(frozen=True)
class Conformal:
    """The conformity scores of a task, from which sets and intervals follow.

    Attributes:
        task: The task.
        scores: {method: the scores of each label or output}, of all rows.
        groups: {group: the same of its rows}; empty where rows are not compared by group.
    """

    task: Task
    scores: ByMethod
    groups: Mapping[str, ByMethod] = field(default_factory=dict)

    @property
    def makes_sets(self) -> bool:
        """Whether predictions are sets of classes; otherwise they are intervals."""
        return "lac" in self.scores

    def interval(
        self, outputs: Tensor, coverage: float, groups: Sequence[str] | None = None
    ) -> Tensor:
        """Returns the lower and the upper ends (B, L, 2) in the label's own unit, fp64.

        They are infinite where too few rows have scores for this coverage.

        Args:
            outputs: (B, O), calibrated where the run is.
            coverage: The probability with which an interval holds the label.
            groups: The group of each row, where rows are compared by group.
        """
        method, (low, high) = read_interval(self.task, outputs)
        widths = self._thresholds(method, coverage, groups, low)
        low, high = low - widths, high + widths
        # an interval that shrinks to less than nothing is a point
        middle = (low + high) / 2
        empty = low > high
        return torch.stack([torch.where(empty, middle, low), torch.where(empty, middle, high)], -1)

    def sets(
        self,
        outputs: Tensor,
        coverage: float,
        method: Method = "lac",
        groups: Sequence[str] | None = None,
    ) -> Tensor:
        """Returns which classes each set holds: bool (B, C), or (B, L, 2) of several labels.

        All classes, where too few rows have scores for this coverage.

        Args:
            outputs: (B, O), calibrated where the run is.
            coverage: The probability with which a set holds the label.
            method: lac or aps.
            groups: The group of each row, where rows are compared by group.
        """
        p = compute_probabilities(self.task, outputs)
        scores = 1 - p if method == "lac" else sum_before(p)
        thresholds = self._thresholds(method, coverage, groups, scores)
        if not isinstance(self.task, MultilabelClassification):
            return scores <= thresholds
        return scores <= thresholds[..., None]

    def count_rows(self, group: str | None = None) -> int:
        """Returns the number of rows that have scores; of several labels the least."""
        scores = self.scores if group is None else self.groups.get(group, {})
        return min((one.rows for many in scores.values() for one in many), default=0)

    def _thresholds(
        self, method: Method, coverage: float, groups: Sequence[str] | None, like: Tensor
    ) -> Tensor:
        """Returns the thresholds (1, L), or of each row (B, L)."""
        if groups is None or not self.groups:
            own = self.scores[method]
            return like.new_tensor([[one.threshold(coverage) for one in own]])
        unseen = [inf] * len(self.scores[method])
        by_group = {}
        for group, scores in self.groups.items():
            by_group[group] = [one.threshold(coverage) for one in scores[method]]
        return like.new_tensor([by_group.get(group, unseen) for group in groups])


def list_methods(task: Task) -> tuple[Method, ...]:
    """Returns the methods of a task's scores; none where it has no conformal predictions."""
    if isinstance(task, Quantiles):
        return ("cqr",) if len(task.levels) > 1 else ("residual",)
    if isinstance(task, Regression):
        return ("residual",)
    places = isinstance(task, SequenceLabelling | Segmentation)
    with_classes = isinstance(
        task, BinaryClassification | Classification | MultilabelClassification
    )
    return SETS if with_classes and not places else ()


def explain_refusal(task: Task, outputs: Tensor) -> str | None:
    """Says why a task has no conformal predictions; None where it has.

    Args:
        task: The task.
        outputs: Outputs of it.
    """
    if isinstance(task, SequenceLabelling | Segmentation) or outputs.ndim > 2:
        return "labels of the places of one sample depend on one another, as rows must not"
    if not list_methods(task):
        return f"there are no conformal predictions of a {type(task).__name__}"
    return None


def measure_conformity(
    task: Task, outputs: Tensor, targets: Tensor, shares: Tensor
) -> dict[Method, Tensor]:
    """Returns {method: scores (B, L)} of rows, fp64 and NaN where the label is missing.

    Args:
        task: A task that :func:`explain_refusal` does not refuse.
        outputs: (B, O), calibrated where the run is.
        targets: (B,) or (B, L).
        shares: (B, L) Numbers drawn evenly from 0 to 1: of its own probability the share that an
            aps score leaves out.
    """
    known = is_labelled(targets).reshape(len(targets), -1)
    if isinstance(task, Regression | Quantiles):
        y = task.in_units(targets.double().reshape(len(targets), -1))
        method, (low, high) = read_interval(task, outputs)
        return {method: torch.maximum(low - y, y - high)}

    p = compute_probabilities(task, outputs)
    several = isinstance(task, MultilabelClassification)
    labels = torch.where(known, targets.reshape(len(targets), -1), 0).long()
    # of one label the classes are a row, of several each has a row of its own
    places = labels[..., None] if several else labels[:, None]
    p = p if several else p[:, None]
    own = p.gather(-1, places).squeeze(-1)
    before = sum_before(p).gather(-1, places).squeeze(-1)
    found: dict[Method, Tensor] = {"lac": 1 - own, "aps": before + (1 - shares) * own}
    return {method: scores.masked_fill(~known, torch.nan) for method, scores in found.items()}


def score_rows(
    task: Task,
    outputs: Tensor,
    targets: Tensor,
    shares: Tensor,
    groups: Sequence[str] | None = None,
) -> Conformal:
    """Returns the conformity scores of a task from rows that trained nothing.

    Args:
        task: A task that :func:`explain_refusal` does not refuse.
        outputs: (B, O), calibrated where the run is.
        targets: (B,) or (B, L).
        shares: See :func:`measure_conformity`.
        groups: The group of each row; None compares all rows.

    Raises:
        UserError: No row has a label.
    """
    measured = measure_conformity(task, outputs, targets, shares)
    if all(scores.isnan().all(0).any() for scores in measured.values()):
        raise UserError("a label has no validation row")

    def keep(rows: Tensor) -> ByMethod:
        kept: dict[Method, tuple[Scores, ...]] = {}
        for method, scores in measured.items():
            kept[method] = tuple(Scores.of(column) for column in scores[rows].unbind(-1))
        return kept

    everyone = torch.ones(len(outputs), dtype=torch.bool)
    by_group = {}
    for group in sorted(set(groups or ())):
        by_group[group] = keep(torch.tensor([own == group for own in groups or ()]))
    return Conformal(task, keep(everyone), by_group)


def read_interval(task: Task, outputs: Tensor) -> tuple[Method, tuple[Tensor, Tensor]]:
    """Returns the method, and the ends (B, L) of the interval that is predicted, in units, fp64.

    That of one number is the number itself.
    """
    if isinstance(task, Quantiles):
        quantiles = task.in_units(task.predict(outputs.double()))
        ends = quantiles[..., :1], quantiles[..., -1:]
        return ("cqr" if len(task.levels) > 1 else "residual"), ends
    assert isinstance(task, Regression)
    values = task.in_units(task.predict(outputs.double()))
    return "residual", (values, values)


def sum_before(p: Tensor) -> Tensor:
    """Returns for each class the sum of the probabilities (..., C) of classes before it.

    Classes stand in the order of their probabilities, the most probable first.
    """
    ordered, places = p.sort(stable=True, dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(p).scatter(-1, places, before)


def count_rows_needed(coverage: float) -> int:
    """Returns the smallest number n of rows with ceil((n + 1) coverage) <= n."""
    n = max(ceil(coverage / (1 - coverage)) - 1, 1)
    while ceil((n + 1) * coverage - DUST) > n:
        n += 1
    return n
