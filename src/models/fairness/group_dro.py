"""Group distributionally robust optimisation: the groups with the largest losses count most."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.batch import Batch
from src.collectives import global_sum
from src.errors import UserError
from src.models.affinities import invert_counts
from src.models.fairness.group_losses import FairnessOfLosses
from src.models.fairness.training_rows import count_labels
from src.models.heads import Heads
from src.tasks import Task

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class GroupDRO(FairnessOfLosses):
    """Each task minimises sum_g q_g L_g, where q grows with the loss of a group.

    (Sagawa et al., "Distributionally robust neural networks for group shifts", ICLR 2020, algorithm
    1.) L_g is the mean loss of a group's labels in the global batch. In each step, before the
    network moves, q_g becomes proportional to q_g exp(step_size L_g), for each task by itself. A
    group that a batch lacks has loss 0 there, as in the authors' code. Large groups have small
    training losses once a network overfits, so that the paper trains with strong weight decay.

    Args:
        tasks: {name: task}.
        groups: The names of the groups.
        step_size: How fast q follows the losses.
        adjustment: C, with which C / sqrt(n_g) is added to the losses that q follows, for the
            n_g labels of a group in the training rows: small groups generalise less.
    """

    weights_GT: Tensor

    def __init__(
        self,
        tasks: Mapping[str, Task],
        groups: Sequence[str],
        step_size: float = 0.01,
        adjustment: float = 0.0,
    ) -> None:
        super().__init__(tasks, groups)
        for key, value in (("step_size", step_size), ("adjustment", adjustment)):
            if not 0 <= value < inf:
                raise UserError(f"model.fairness.{key} is {value}; it must be a number from 0")
        self.step_size = step_size
        self.adjustment = adjustment
        shape = len(self.groups), len(self.tasks)
        even = torch.full(shape, 1 / len(self.groups), dtype=torch.float64)
        self.register_buffer("weights_GT", even)
        self.adjustments_GT: Tensor | None = None

    def prepare(self, model: "MultiTaskModel") -> None:
        """Counts the labels of each group, where small groups are adjusted for."""
        if self.adjustment:
            counts_GT = count_labels(model, len(self.groups)).to(self.weights_GT)
            self.adjustments_GT = self.adjustment / counts_GT.clamp(min=1).sqrt()

    def loss_sums(
        self, heads: Heads, outputs: list[Tensor], batch: Batch, learns: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns sums whose quotient over all processes is sum_g q_g L_g, both (T,)."""
        sums_GT, counts_GT = self.sum_losses(heads, outputs, batch)
        totals_2GT = global_sum(torch.stack([sums_GT.detach(), counts_GT]).double())
        inverse_GT = invert_counts(totals_2GT[1])
        if learns:
            self._follow(totals_2GT[0] * inverse_GT)
            self.curves.add(totals_2GT)

        # the shares of the labels on this process sum to 1 over all
        own_GT = (self.weights_GT * inverse_GT).to(sums_GT)
        shares_T = counts_GT.sum(0) * invert_counts(totals_2GT[1].sum(0)).to(counts_GT)
        return (own_GT * sums_GT).sum(0), shares_T

    @torch.no_grad()
    def _follow(self, losses_GT: Tensor) -> None:
        """Moves the weights towards the groups with large losses."""
        if self.adjustments_GT is not None:
            losses_GT = losses_GT + self.adjustments_GT
        grown_GT = self.weights_GT * (self.step_size * losses_GT).exp()
        self.weights_GT.copy_(grown_GT / grown_GT.sum(0))

    # -- what a person sees ------------------------------------------------------------------------
    def read_weights(self) -> Tensor:
        """Returns q, (G, T)."""
        return self.weights_GT

    def summary(self) -> list[str]:
        """Returns a line on the group that weighs most in each task."""
        worst = self.weights_GT.max(0)
        parts = []
        for name, weight, place in zip(
            self.tasks, worst.values.tolist(), worst.indices.tolist(), strict=True
        ):
            parts.append(f"{name} {self.groups[place]} ({weight:.2f})")
        return [f"groups that weigh most: {', '.join(parts)}"]
