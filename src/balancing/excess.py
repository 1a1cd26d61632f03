"""ExcessMTL: weights by excess risk."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import Level, TaskLosses
from src.balancing.gradients import Coordinates, GradientBalancer
from src.errors import UserError


class ExcessMTL(GradientBalancer):
    """ExcessMTL: weighs tasks by how far each still is from its own optimum.

    This excess risk, unlike the loss, does not grow with the noise of the labels (He et al.,
    "Robust multi-task learning with excess risks", ICML 2024). A second-order expansion with the
    diagonal of AdaGrad, h_t = sum over steps of g_t^2, estimates it as

        E_t = sum_i g_ti^2 / (sqrt(h_ti) + eps)

    relative to its value in the first step. Then w_t <- w_t exp(eta E_t), rescaled to sum to T, and
    d = sum_t w_t g_t. The weights count in the heads too.

    The T x P accumulators belong to parameters, so that the method has no level features.

    Args:
        tasks: {task: likelihood}.
        level: parameters.
        eta: Step size of the weights.
    """

    # its weights count in the heads, whose micro-batches are over before the weights are known
    accumulates = False
    levels = ("parameters",)
    level_reason = "adds up squared gradients of parameters over steps"
    squares_TP: Tensor
    weights_T: Tensor
    first_T: Tensor

    def __init__(
        self, tasks: Mapping[str, str], level: Level = "parameters", eta: float = 0.01
    ) -> None:
        super().__init__(tasks, level)
        if eta <= 0:
            raise UserError(f"ExcessMTL: eta {eta} must be above 0")
        self.eta = eta
        self.register_buffer("weights_T", torch.ones(len(tasks), dtype=torch.float64))
        self.register_buffer("first_T", torch.full((len(tasks),), torch.nan, dtype=torch.float64))

    def prepare(self, size: int) -> None:
        self.register_buffer("squares_TP", torch.zeros(len(self.tasks), size))

    def combine(self, rows_TN: Tensor, losses: TaskLosses, where: Coordinates) -> Tensor:
        if rows_TN.isfinite().all():
            self._update_weights(rows_TN, losses.present_T.cpu())
        return self.weights_T.to(rows_TN) @ rows_TN

    def _update_weights(self, rows_TN: Tensor, present_T: Tensor) -> None:
        self.squares_TP += rows_TN.square()
        excess = (rows_TN.square() / (self.squares_TP.sqrt() + 1e-7)).sum(1).double().cpu()
        here = present_T & (excess > 0)

        # the first step in which a task has a gradient sets its scale
        self.first_T.copy_(torch.where(here & self.first_T.isnan(), excess, self.first_T))
        growth = (self.eta * excess / self.first_T).nan_to_num(0).exp()
        grown = torch.where(here, self.weights_T * growth, self.weights_T)
        self.weights_T.copy_(len(self.tasks) * grown / grown.sum())

    def head_weights(self, losses: TaskLosses) -> Tensor | None:
        return self.weights_T
