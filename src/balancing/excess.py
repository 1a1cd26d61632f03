"""Excess risk."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import Coordinates, GradientBalancer, Level, TaskLosses
from src.errors import UserError


class ExcessMTL(GradientBalancer):
    """Weights by how far each task still is from its own optimum, which label noise does not move.

    Weights by how far each task still is from its own optimum, which label noise does not move (He
    et al., "Robust multi-task learning with excess risks", ICML 2024).

    The excess risk by a second-order expansion with AdaGrad's diagonal h_t = sum over steps of
    g_t^2: E_t = sum_i g_ti^2 / (sqrt(h_ti) + eps), relative to that of the first step; w_t <- w_t
    exp(eta E_t), rescaled to sum n; d = sum_t w_t g_t. The weights count in the heads too. The T x
    P accumulators belong to parameters.

    Args:
        tasks: {task: likelihood}.
        level: parameters.
        eta: Step size of the weights.
    """

    accumulates = (
        False  # its weights count in the heads, whose micro-batches are over before it knows them
    )
    levels = ("parameters",)
    why = "adds up squared gradients of parameters over steps"
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
            self.squares_TP += rows_TN.square()
            excess = (rows_TN.square() / (self.squares_TP.sqrt() + 1e-7)).sum(1).double().cpu()
            here = losses.present_T.cpu() & (excess > 0)
            self.first_T.copy_(torch.where(here & self.first_T.isnan(), excess, self.first_T))
            grown = torch.where(
                here,
                self.weights_T * (self.eta * excess / self.first_T).nan_to_num(0).exp(),
                self.weights_T,
            )
            self.weights_T.copy_(len(self.tasks) * grown / grown.sum())
        return self.weights_T.to(rows_TN) @ rows_TN

    def head_weights(self, losses: TaskLosses) -> Tensor | None:
        return self.weights_T
