"""The contract of every way to train for groups of people.

Shapes: T tasks, G groups, B rows of this process. Objectives are what the balancer weighs: the T
tasks, or T x G losses, all tasks of the first group first.
"""

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from src.batch import SENSITIVE, Batch
from src.errors import UserError
from src.models.heads import Heads
from src.tasks import Task

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class Fairness(nn.Module, ABC):
    """Changes the weights of rows, or the losses of tasks, by the groups that rows belong to.

    All that is computed of groups is computed over the global batch, so that a run is the same on
    any number of processes. State that training changes lies in buffers of fixed shape.

    Args:
        tasks: {name: task}, in the order of T.
        groups: The names of the groups, as the data say.

    Attributes:
        changes_losses: Whether the losses of a step depend on the groups of the whole batch, so
            that the batch cannot be cut into slices.
        splits_objectives: Whether the balancer weighs each task's loss in each group.
    """

    changes_losses: ClassVar[bool] = True
    splits_objectives: ClassVar[bool] = False

    def __init__(self, tasks: Mapping[str, Task], groups: Sequence[str]) -> None:
        super().__init__()
        self.method = type(self).__name__
        if not groups:
            raise UserError(
                f"model.fairness {self.method} compares groups of people, and the data name none: "
                "name the columns of a table that tell them, --data.sensitive '[COLUMN]'"
            )
        self.tasks = dict(tasks)
        self.groups = tuple(groups)

    # -- what a method provides --------------------------------------------------------------------
    def prepare(self, model: "MultiTaskModel") -> None:
        """Prepares for a fit, on the model's device."""

    def weigh_rows(self, batch: Batch) -> None:
        """Changes the weights of a batch's rows, in place."""

    def loss_sums(
        self, heads: Heads, outputs: list[Tensor], batch: Batch, learns: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns what the balancer weighs: sums of losses and counts, on this process.

        An objective is the quotient of both sums over all processes.

        Args:
            heads: The heads of the model.
            outputs: The outputs of the groups of alike tasks.
            batch: This process's share of the global batch.
            learns: Whether this is the forward pass of a training step, and no second look at it.
        """
        return heads.loss_sums(outputs, batch.targets, batch.weights, batch.taught)

    def notes(self) -> list[str]:
        """Returns a line on what is compared, before training begins."""
        return [f"fairness {self.method} over {len(self.groups)} groups: {join_some(self.groups)}"]

    def merge_groups(
        self, totals_2O: Tensor, weights_O: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Notes what the balancer has seen and decided in a step, and returns it by task.

        Args:
            totals_2O: Sums of losses and counts of labels of each objective over all processes.
            weights_O: The weights of the objectives; None where the balancer has none.

        Returns:
            The sums and counts (2, T), and the mean weights over groups (T,).
        """
        totals_2T = totals_2O.unflatten(1, (len(self.groups), -1)).sum(1)
        if weights_O is None:
            return totals_2T, None
        return totals_2T, weights_O.view(len(self.groups), -1).mean(0)

    def measure(self) -> dict[str, float]:
        """Returns {tag: value} since the last call, for the curves of training."""
        return {}

    def begin_evaluation(self) -> None:
        """Begins to measure groups in an evaluation."""

    def add_rows(self, heads: Heads, outputs: list[Tensor], batch: Batch) -> None:
        """Adds a batch of this process's rows to an evaluation."""

    def finish_evaluation(self, stage: str) -> dict[str, float]:
        """Returns {tag: value} over the rows of all processes.

        Args:
            stage: 'val' or 'test'.
        """
        return {}

    def summary(self) -> list[str]:
        """Returns lines that tell a person, when training ends, what was learnt."""
        return []

    # -- what a model calls ------------------------------------------------------------------------
    def name_objectives(self, likelihoods: Mapping[str, str]) -> dict[str, str]:
        """Returns {objective: likelihood} of what the balancer weighs, given that of each task."""
        if not self.splits_objectives:
            return dict(likelihoods)
        found = {}
        for group in self.groups:
            for name, likelihood in likelihoods.items():
                found[f"{name} ({group})"] = likelihood
        return found

    def check(self, model: "MultiTaskModel", micro_batches: int) -> None:
        """Checks a network that is built.

        Args:
            model: The model.
            micro_batches: The number of batches per optimizer step.

        Raises:
            UserError: It cannot train so.
        """
        if model.meta is not None:
            raise UserError(
                f"model.fairness {self.method} compares groups of rows, and model.meta learns from "
                "episodes: leave one of them out"
            )
        if not self.changes_losses:
            return
        if micro_batches > 1:
            raise UserError(
                f"model.fairness {self.method} compares groups over the rows of a whole step, and "
                "micro-batches would each be compared by themselves: set accumulate_grad_batches 1"
            )
        if model.balancer.needs_lookahead:
            raise UserError(
                f"model.fairness {self.method} changes losses by the groups of a batch, and "
                f"{type(model.balancer).__name__} looks at another batch besides: use another "
                "balancer"
            )


def join_some(names: Sequence[str], most: int = 6) -> str:
    """Joins some names, and counts the others."""
    shown = "; ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def read_codes(batch: Batch) -> Tensor:
    """Returns the number of each row's group (B,), below 0 where a row is in none.

    Raises:
        UserError: The batch does not say.
    """
    codes = batch.extras.get(SENSITIVE)
    if codes is None:
        raise UserError(
            "model.fairness compares groups, and the rows of these data do not say theirs: a batch "
            f"needs extras['{SENSITIVE}'], the number of each row's group"
        )
    return codes


def mark_groups(codes: Tensor, groups: int, like: Tensor) -> Tensor:
    """Returns 1 where an element is in a group, else 0: (N, G).

    Args:
        codes: (N,) The group of each element; below 0 for none.
        groups: G.
        like: A tensor of the type and on the device of the result.
    """
    codes = codes.to(like.device)
    marks = F.one_hot(codes.clamp(min=0), groups) * (codes >= 0)[:, None]
    return marks.to(like.dtype)
