"""The gradients of the tasks' losses in each group of rows, at the features and in the heads.

Shapes: G groups, T tasks; O = G T objectives, all tasks of the first group first.
"""

from collections.abc import Sequence

from torch import Tensor

from src.models.backward.head_gradients import HeadGradients


class GroupGradients:
    """Gradients that are kept apart by group, for the parameter level.

    Args:
        groups: The gradients of each group's sums of losses, on one forward pass of the heads.
    """

    def __init__(self, groups: Sequence[HeadGradients]) -> None:
        self.groups = groups

    def per_task(self) -> list[Tensor]:
        """Returns the gradient of each objective at its task's features, (N, D), O of them."""
        return [row for gradients in self.groups for row in gradients.per_task()]

    def of_heads(self, weights_O: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the gradients of the weighted sum of all objectives in the heads.

        Returns:
            The tensors that lead to the heads' parameters, and the gradient at each of them.
        """
        of_groups = weights_O.view(len(self.groups), -1)
        places, total = self.groups[0].of_heads(of_groups[0])
        for gradients, weights_T in zip(self.groups[1:], of_groups[1:], strict=True):
            _, more = gradients.of_heads(weights_T)
            total = [one + other for one, other in zip(total, more, strict=True)]
        return places, total
