"""The size of an optimizer's step in each of some parameters."""

from math import nan
from typing import Any

from torch import Tensor, nn

from src.runner import Shards


class StepSizes:
    """The step sizes of the step that an optimizer has just taken.

    Args:
        optimizer: The optimizer; Adam and its kin keep squares of gradients.
        shards: The layout of the parameters; None where this process has whole ones.
    """

    def __init__(self, optimizer: Any, shards: Shards | None = None) -> None:
        self.groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        self.state = optimizer.state
        self.shards = shards

    def rate(self, p: nn.Parameter) -> float:
        """Returns the learning rate of a parameter; 0 where it is frozen."""
        group = self.groups.get(id(p))
        return 0.0 if group is None else float(group["lr"])

    def gradient_sizes(self, p: nn.Parameter) -> Tensor | None:
        """Returns the root mean square of each weight's gradients, as Adam estimates it.

        An optimizer with rate eta moves weights by eta x gradient / size. It is None for optimizers
        that do not divide.
        """
        state = self.state.get(p, {})
        group = self.groups.get(id(p), {})
        if "exp_avg_sq" not in state or "betas" not in group:
            return None
        squares = state["exp_avg_sq"]
        if self.shards is not None:
            squares = self.shards.full_tensor(squares)
        decay = group["betas"][1]
        steps = float(state["step"]) if "step" in state else nan
        return (squares / (1 - decay**steps)).sqrt()
