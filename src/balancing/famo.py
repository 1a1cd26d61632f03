"""FAMO: fast adaptive multitask optimisation."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.adam import Adam
from src.balancing.balancer import LossBalancer, TaskLosses
from src.errors import UserError


class FAMO(LossBalancer):
    """FAMO: learns weights under which the logarithms of all losses fall at the same rate.

    z = softmax(xi), w_t = c z_t / L_t with c = 1 / sum_t (z_t / L_t). After the optimizer's step
    the losses of the same batch are computed once more, without gradients, and xi takes a step of
    Adam along J' (log L_before - log L_after) + decay xi, where J is the Jacobian of the softmax
    (Liu et al., "FAMO: fast adaptive multitask optimization", NeurIPS 2023).

    A step costs a second forward pass. If a task has no label in a batch, its xi and the state of
    Adam for it stay as they are.

    Args:
        tasks: {task: likelihood}.
        lr: Adam's learning rate for xi.
        decay: Strength of the pull of xi towards 0.
    """

    accumulates = False
    needs_reevaluation = True
    xi_T: Tensor

    def __init__(self, tasks: Mapping[str, str], lr: float = 0.025, decay: float = 0.001) -> None:
        super().__init__(tasks)
        if lr <= 0 or decay < 0:
            raise UserError(f"FAMO: lr {lr} must be above 0 and decay {decay} at least 0")
        self.decay = decay
        self.register_buffer("xi_T", torch.zeros(len(tasks), dtype=torch.float64))
        self.adam = Adam(len(tasks), lr)

    def weigh(self, losses: TaskLosses) -> Tensor:
        positive = losses.present_T & (losses.global_T > 0)
        z = self.xi_T.masked_fill(~positive, -torch.inf).softmax(0).nan_to_num(0)
        ratios = torch.where(positive, z / losses.global_T.where(positive, 1), 0)
        return ratios / ratios.sum().clamp(min=torch.finfo(torch.float64).tiny)

    def after_step(self, before: TaskLosses, after: TaskLosses) -> None:
        known = before.present_T & (before.global_T > 0) & (after.global_T > 0)
        if not after.global_T.isfinite().all() or not known.any():
            return
        log_before = before.global_T.where(known, 1).log()
        log_after = after.global_T.where(known, 1).log()
        fall = torch.where(known, log_before - log_after, 0)

        # the softmax's Jacobian times the fall
        z = self.xi_T.masked_fill(~known, -torch.inf).softmax(0)
        gradient = z * (fall - (z * fall).sum()) + self.decay * self.xi_T
        self.xi_T -= self.adam.step(gradient, known)
