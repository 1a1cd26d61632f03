"""The losses of groups: sums over rows, means over a stretch of training or an evaluation."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from src.batch import Batch
from src.collectives import global_sum
from src.models.fairness.base import Fairness, mark_groups, read_codes
from src.models.heads import Heads
from src.tasks import Task


class GroupLosses:
    """The mean losses of each task in each group, over a stretch of training or an evaluation.

    Args:
        tasks: The names of the tasks.
        groups: The names of the groups.
    """

    def __init__(self, tasks: Sequence[str], groups: Sequence[str]) -> None:
        self.tasks = tasks
        self.groups = groups
        self.totals_2GT: Tensor | None = None

    def add(self, totals_2GT: Tensor) -> None:
        """Adds sums of losses and counts of labels."""
        totals_2GT = totals_2GT.detach().double()
        if self.totals_2GT is None:
            self.totals_2GT = torch.zeros_like(totals_2GT)
        self.totals_2GT += totals_2GT

    def take(self, stage: str, sums_over_ranks: bool = False) -> dict[str, float]:
        """Returns {stage/task/loss/group: mean}, and begins anew; a group without labels is absent.

        Args:
            stage: What the names of the values begin with.
            sums_over_ranks: Whether the sums are of this process alone.
        """
        totals_2GT, self.totals_2GT = self.totals_2GT, None
        if totals_2GT is None:
            return {}
        if sums_over_ranks:
            global_sum(totals_2GT)
        sums, counts = totals_2GT.tolist()
        found = {}
        for g, group in enumerate(self.groups):
            for t, task in enumerate(self.tasks):
                if counts[g][t]:
                    found[f"{stage}/{task}/loss/{group}"] = sums[g][t] / counts[g][t]
        return found


class FairnessOfLosses(Fairness):
    """Base of the ways that look at the losses of groups, and log them.

    Args:
        tasks: {name: task}.
        groups: The names of the groups.
    """

    def __init__(self, tasks: Mapping[str, Task], groups: Sequence[str]) -> None:
        super().__init__(tasks, groups)
        self.curves = GroupLosses(list(tasks), self.groups)
        self.evaluated = GroupLosses(list(tasks), self.groups)

    def sum_losses(
        self, heads: Heads, outputs: list[Tensor], batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Returns sums of losses, in the graph, and counts of labels on this process: (G, T)."""
        losses_BT, counts_BT = heads.losses_by_row(
            outputs, batch.targets, batch.weights, batch.taught
        )
        marks_BG = mark_groups(read_codes(batch), len(self.groups), losses_BT)
        return marks_BG.T @ losses_BT, marks_BG.T @ counts_BT

    def measure(self) -> dict[str, float]:
        """Returns the mean losses of groups since the last call, and their weights by now."""
        found = self.curves.take("train")
        weights_GT = self.read_weights()
        if weights_GT is not None:
            for group, row in zip(self.groups, weights_GT.tolist(), strict=True):
                for name, weight in zip(self.tasks, row, strict=True):
                    found[f"weight/{name}/{group}"] = weight
        return found

    @abstractmethod
    def read_weights(self) -> Tensor | None:
        """Returns the weight of each group in each task by now (G, T); None for none."""

    def begin_evaluation(self) -> None:
        """Begins to sum losses."""
        self.evaluated = GroupLosses(list(self.tasks), self.groups)

    def add_rows(self, heads: Heads, outputs: list[Tensor], batch: Batch) -> None:
        """Adds the losses of some rows."""
        self.evaluated.add(torch.stack(self.sum_losses(heads, outputs, batch)))

    def finish_evaluation(self, stage: str) -> dict[str, float]:
        """Returns the mean loss of each task in each group."""
        return self.evaluated.take(stage, sums_over_ranks=True)
