"""STCH: smooth Tchebycheff scalarisation."""

from collections.abc import Mapping

import torch
from torch import Tensor

from src.balancing.balancer import LossBalancer, TaskLosses
from src.errors import UserError


class SmoothTchebycheff(LossBalancer):
    """STCH: minimises a smooth form of the largest loss.

    The scalar is mu log sum_t exp(L_t / mu), so that w = softmax(L / mu) (Lin et al., "Smooth
    Tchebycheff scalarization for multi-objective optimization", ICML 2024, with the ideal point 0).

    The multi-task results of the paper need ``warmup`` 4 and ``nadir`` true. For ``warmup`` epochs,
    and for one more, sum_t log L_t is minimised; the task's mean loss in that one more is its nadir
    z_t. From then on n mu log sum_t exp(log(L_t / z_t) / mu) is minimised over the n tasks with
    labels, so that w_t = n softmax(log(L / z) / mu)_t / L_t. The scales of the losses then do not
    matter. A loss of exactly 0 leaves the logarithms, and so does a task without labels in the
    epoch of the nadir.

    Args:
        tasks: {task: likelihood}.
        mu: Near 0 only the largest loss counts; the larger mu, the more alike all losses count.
        warmup: Epochs in which the sum of the logarithms is minimised.
        nadir: Whether losses are taken relative to the task's mean loss in the epoch that follows.
    """

    accumulates = False
    epochs: Tensor
    # rows: the sum of the losses in the epoch of the nadir, and the number of steps with labels
    sums_2T: Tensor

    def __init__(
        self, tasks: Mapping[str, str], mu: float = 1.0, warmup: int = 0, nadir: bool = False
    ) -> None:
        super().__init__(tasks)
        if mu <= 0 or warmup < 0:
            raise UserError(
                f"SmoothTchebycheff: mu {mu} must be above 0 and warmup {warmup} at least 0"
            )
        self.mu = mu
        self.warmup = warmup
        self.nadir = nadir
        if warmup or nadir:
            self.register_buffer("epochs", torch.zeros((), dtype=torch.float64))
        if nadir:
            self.register_buffer("sums_2T", torch.zeros(2, len(tasks), dtype=torch.float64))

    def weigh(self, losses: TaskLosses) -> Tensor:
        epoch = int(self.epochs) if self.warmup or self.nadir else self.warmup
        positive = losses.present_T & (losses.global_T > 0)
        inverse = torch.where(positive, 1 / losses.global_T.where(positive, 1), 0)
        if epoch < self.warmup:
            return inverse
        if not self.nadir:
            return self.softmax(losses.global_T, losses.present_T)

        # the epoch of the nadir goes on as the warm-up, and adds up the losses
        if epoch == self.warmup:
            if losses.global_T.isfinite().all():
                self.sums_2T += torch.stack([losses.global_T, losses.present_T.to(losses.global_T)])
            return inverse

        sums, counts = self.sums_2T
        positive &= sums > 0
        relative = (losses.global_T * counts / sums.where(positive, 1)).where(positive, 1).log()
        return positive.sum() * self.softmax(relative, positive) * inverse

    def softmax(self, values_T: Tensor, present_T: Tensor) -> Tensor:
        """Returns the softmax of values / mu over the present tasks, and 0 for the others."""
        return (values_T / self.mu).masked_fill(~present_T, -torch.inf).softmax(0).nan_to_num(0)

    def on_epoch_end(self) -> None:
        # the counter stops when the nadir is known
        if (self.warmup or self.nadir) and self.epochs <= self.warmup:
            self.epochs += 1
