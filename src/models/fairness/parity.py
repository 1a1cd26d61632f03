"""The base of penalties on differences of mean predictions between groups.

Shapes: N elements (labels) of this process, C numbers that are predicted of each, J conditions (the
classes of the label, or a single one for all labels), G groups, T tasks. A cell is a condition, a
group and a number.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import inf
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from src.batch import Batch
from src.collectives import global_sum, replica
from src.errors import UserError, suggest_or_list
from src.models.fairness.base import Fairness, mark_groups, read_codes
from src.models.fairness.predictions import (
    count_label_classes,
    is_comparable,
    read_predictions,
)
from src.models.heads import Heads
from src.tasks import MISSING, Task


class CellSums(NamedTuple):
    """Sums over elements, each (J, G, C).

    Attributes:
        values: The sums of predictions.
        counts: The weights of the elements behind them.
    """

    values: Tensor
    counts: Tensor

    def detach(self) -> Tensor:
        """Returns both side by side, (2, J, G, C), without a graph."""
        return torch.stack([self.values.detach(), self.counts])


class ParityPenalty(Fairness):
    """Adds to each task's loss its strength times the mean squared difference between groups.

    The difference is of the mean predictions of two groups over the global batch: of probabilities,
    or of standardised numbers. The square is averaged over pairs of groups, and over the cells that
    are compared. Predictions count whose label is known, times the weight of their row; a group
    that a batch lacks leaves the comparison. The penalty belongs to the task's loss: a balancer
    weighs both together, and the loss that is logged contains it.

    Args:
        tasks: {name: task}.
        groups: The names of the groups.
        strength: The factor, or {task: factor}; tasks that it does not name have 0.

    Attributes:
        given_label: Whether groups are compared among the labels of one class.
    """

    given_label: ClassVar[bool]

    def __init__(
        self,
        tasks: Mapping[str, Task],
        groups: Sequence[str],
        strength: float | dict[str, float] = 1.0,
    ) -> None:
        super().__init__(tasks, groups)
        self.strengths = self._read_strengths(strength)
        # sums over the global batches of training, and over this process's rows of an evaluation
        self.curves: dict[str, Tensor] = {}
        self.evaluated: dict[str, Tensor] = {}

    @property
    @abstractmethod
    def requirement(self) -> str:
        """Says in messages which tasks can be compared."""

    def can_compare(self, task: Task) -> bool:
        """Returns whether a task has what is compared."""
        classes = count_label_classes(task)
        return is_comparable(task) and (classes > 0 or not self.given_label)

    def _read_strengths(self, given: float | Mapping[str, float]) -> dict[str, float]:
        """Returns the strength of each task that can be compared.

        Raises:
            UserError: A strength is no number from 0, or of a task that cannot be compared.
        """
        key = "model.fairness.strength"
        fit = [name for name, task in self.tasks.items() if self.can_compare(task)]
        if not fit:
            raise UserError(f"model.fairness {self.method} {self.requirement}, which no task has")
        named = given if isinstance(given, Mapping) else dict.fromkeys(fit, given)
        for name, value in named.items():
            if name not in self.tasks:
                hint = suggest_or_list(name, fit)
                raise UserError(f"{key} names '{name}', which is no task; {hint}")
            if not 0 <= value < inf:
                place = f"{key}.{name}" if isinstance(given, Mapping) else key
                raise UserError(f"{place} is {value}; it must be a number from 0")
            if name not in fit:
                kind = type(self.tasks[name]).__name__
                raise UserError(
                    f"{key} names '{name}', but {self.method} {self.requirement}, which a {kind} "
                    f"has not; it can be {', '.join(fit)}"
                )
        return {name: float(named.get(name, 0.0)) for name in fit}

    # -- the loss ----------------------------------------------------------------------------------
    def loss_sums(
        self, heads: Heads, outputs: list[Tensor], batch: Batch, learns: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns sums of losses with penalties, and counts of labels, both (T,).

        With n labels of a task in the global batch and W processes, n times the penalty is added
        over all processes, so that the quotient of both sums has the penalty itself. Each process
        has the gradient of the global penalty in its own predictions.
        """
        sums_T, counts_T = heads.loss_sums(outputs, batch.targets, batch.weights, batch.taught)
        cells = self.sum_cells(heads.split(outputs), batch)
        own = [counts_T.double(), *(sums.detach().flatten() for sums in cells.values())]
        totals = global_sum(torch.cat(own)).split([len(piece) for piece in own])
        n_T = totals[0].to(sums_T)

        penalties = torch.zeros_like(sums_T)
        for (name, sums), total in zip(cells.items(), totals[1:], strict=True):
            whole = total.view(2, *sums.values.shape)
            if learns:
                self.curves[name] = self.curves.get(name, 0) + whole
            if not self.strengths[name]:
                continue
            value, slopes = differentiate_penalty(whole[0], whole[1])
            # the value of the global penalty, and the gradient of the part that is here
            local = (slopes * sums.values).sum()
            penalty = value / replica()[1] + (local - local.detach())
            place = list(self.tasks).index(name)
            mark = torch.zeros_like(n_T)
            mark[place] = self.strengths[name] * n_T[place]
            penalties = penalties + mark * penalty.to(sums_T)
        return sums_T + penalties, counts_T

    def sum_cells(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, CellSums]:
        """Returns the sums of each comparable task over this process's rows.

        Args:
            outputs: {task: (B, ..., O)}.
            batch: The rows.
        """
        codes = read_codes(batch)
        found = {}
        for name in self.strengths:
            task = self.tasks[name]
            predictions = read_predictions(task, outputs[name], batch.targets[name])
            values_NC, labels_NC = predictions
            if self.given_label:
                conditions = [labels_NC == label for label in range(count_label_classes(task))]
            else:
                conditions = [labels_NC != MISSING]
            counted_JNC = torch.stack(conditions).to(values_NC)

            # all places of a row are in the row's group
            places = len(values_NC) // max(len(codes), 1)
            marks_NG = mark_groups(codes.repeat_interleave(places), len(self.groups), values_NC)
            if name in batch.weights:
                weights_N = batch.weights[name].repeat_interleave(places)
                marks_NG = marks_NG * weights_N.to(marks_NG)[:, None]
            found[name] = CellSums(marks_NG.T @ (values_NC * counted_JNC), marks_NG.T @ counted_JNC)
        return found

    # -- what a person sees ------------------------------------------------------------------------
    def measure(self) -> dict[str, float]:
        """Returns the largest difference between groups in each task since the last call."""
        found, self.curves = self.curves, {}
        return self._measure("train", found)

    def _measure(self, stage: str, sums: Mapping[str, Tensor]) -> dict[str, float]:
        values = {f"{stage}/{name}/gap": find_gap(*whole) for name, whole in sums.items()}
        return {tag: value for tag, value in values.items() if value is not None}

    def begin_evaluation(self) -> None:
        """Begins to sum predictions."""
        self.evaluated = {}

    def add_rows(self, heads: Heads, outputs: list[Tensor], batch: Batch) -> None:
        """Adds the predictions of some rows."""
        for name, sums in self.sum_cells(heads.split(outputs), batch).items():
            self.evaluated[name] = self.evaluated.get(name, 0) + sums.detach()

    def finish_evaluation(self, stage: str) -> dict[str, float]:
        """Returns the largest difference of mean predictions between groups in each task."""
        sums = {name: global_sum(whole) for name, whole in self.evaluated.items()}
        return self._measure(stage, sums)


def compute_penalty(values_JGC: Tensor, counts_JGC: Tensor) -> Tensor:
    """Returns the mean squared difference between two groups' means, over comparable cells.

    Args:
        values_JGC: The sums of predictions.
        counts_JGC: The weights behind them; 0 for a group that is not there.
    """
    present = counts_JGC > 0
    groups_JC = present.sum(1)
    means = values_JGC / counts_JGC.where(present, 1)
    centre = (means * present).sum(1, keepdim=True) / groups_JC.clamp(min=1)[:, None]
    squares_JC = ((means - centre) * present).square().sum(1)

    # the mean over pairs of G groups is 2 / (G - 1) times the sum over groups
    pairs_JC = squares_JC * 2 / (groups_JC - 1).clamp(min=1)
    comparable = groups_JC > 1
    return (pairs_JC * comparable).sum() / comparable.sum().clamp(min=1)


def differentiate_penalty(values_JGC: Tensor, counts_JGC: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the penalty, and its derivatives in the sums of predictions (J, G, C)."""
    with torch.enable_grad():
        sums = values_JGC.detach().requires_grad_()
        value = compute_penalty(sums, counts_JGC)
        (slopes,) = torch.autograd.grad(value, sums)
    return value.detach(), slopes


def find_gap(values_JGC: Tensor, counts_JGC: Tensor) -> float | None:
    """Returns the largest difference between two groups' means; None where there is no pair."""
    present = counts_JGC > 0
    means = values_JGC / counts_JGC.where(present, 1)
    highest = means.where(present, -inf).amax(1)
    lowest = means.where(present, inf).amin(1)
    comparable = present.sum(1) > 1
    if not comparable.any():
        return None
    return float((highest - lowest)[comparable].max())
