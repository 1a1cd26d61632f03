"""Groups as objectives: the balancer weighs the loss of each task in each group."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from src.batch import Batch
from src.errors import UserError
from src.models.fairness.group_losses import FairnessOfLosses
from src.models.heads import Heads
from src.tasks import Task

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel


class GroupObjectives(FairnessOfLosses):
    """Gives the balancer an objective for each task and group, the mean loss of the group.

    So any balancer acts over groups: StaticWeights counts all groups alike, SmoothTchebycheff looks
    at the worst, MGDA and PCGrad look for steps that harm none (as in Martinez, Bertran and Sapiro,
    "Minimax Pareto fairness", ICML 2020). Balancers that look at gradients do so in the shared
    parameters: at the shared features, gradients of two groups are on different rows, and never in
    conflict. They take a backward pass for each objective. A group that a batch lacks leaves the
    balancing of the step.

    Args:
        tasks: {name: task}.
        groups: The names of the groups.
    """

    splits_objectives: ClassVar[bool] = True

    def __init__(self, tasks: Mapping[str, Task], groups: Sequence[str]) -> None:
        super().__init__(tasks, groups)
        self.latest_O: Tensor | None = None

    def check(self, model: "MultiTaskModel", micro_batches: int) -> None:
        """Checks that the balancer can look at groups.

        Raises:
            UserError: It cannot.
        """
        super().check(model, micro_batches)
        method = type(model.balancer).__name__
        if model.balancer.level == "features":
            raise UserError(
                f"{method} looks at gradients at the shared features, where those of two groups "
                "are on different rows and never in conflict: set --model.balancer.level parameters"
            )
        if model.sharing.takes_preference:
            raise UserError(
                f"model.fairness {self.method} balances groups, and {type(model.sharing).__name__} "
                "takes a preference among tasks: use another sharing architecture"
            )

    def loss_sums(
        self, heads: Heads, outputs: list[Tensor], batch: Batch, learns: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns sums of losses and counts of labels of each group and task, both (G T,)."""
        sums_GT, counts_GT = self.sum_losses(heads, outputs, batch)
        return sums_GT.flatten(), counts_GT.flatten()

    def merge_groups(
        self, totals_2O: Tensor, weights_O: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Notes losses and weights of the objectives; returns those of tasks."""
        self.curves.add(totals_2O.unflatten(1, (len(self.groups), -1)))
        self.latest_O = weights_O
        return super().merge_groups(totals_2O, weights_O)

    def read_weights(self) -> Tensor | None:
        """Returns the latest weight of each objective, (G, T); None where the balancer has none."""
        return None if self.latest_O is None else self.latest_O.view(len(self.groups), -1)
