"""Auto-Lambda: weights learnt by looking one step ahead."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from src.balancing.adam import Adam
from src.balancing.balancer import LossBalancer, TaskLosses
from src.errors import UserError


class AutoLambda(LossBalancer):
    """Auto-Lambda: learns the weights under which a step lowers the losses on another batch most.

    A step would move the parameters to theta' = theta - rate sum_t lambda_t g_t. The losses of
    another batch then change with lambda_t by -rate <v, g_t>, where v is the gradient of their sum
    at theta'. Each step computes the slopes <v, g_t> (exactly, where the paper takes differences),
    moves lambda by a step of Adam against the gradient -rate <v, g_t>, keeps it at or above 0, and
    then minimises sum_t lambda_t L_t (Liu, James, Davison and Johns, "Auto-Lambda: disentangling
    dynamic task relationships", TMLR 2022).

    A step costs about as much as four plain steps.

    Args:
        tasks: {task: likelihood}.
        lr: Adam's learning rate for lambda.
        first: Initial value of lambda.
        batches: Split that provides the other batch. ``train`` takes other training rows, so that
            no validation row has an influence on training; ``val`` takes validation rows.
    """

    accumulates = False
    needs_lookahead = True
    lambdas_T: Tensor

    def __init__(
        self,
        tasks: Mapping[str, str],
        lr: float = 0.001,
        first: float = 0.1,
        batches: Literal["train", "val"] = "train",
    ) -> None:
        super().__init__(tasks)
        if lr <= 0 or first <= 0:
            raise UserError(f"AutoLambda: lr {lr} and first {first} must be above 0")
        self.lookahead_batches = batches
        self.register_buffer("lambdas_T", torch.full((len(tasks),), first, dtype=torch.float64))
        self.adam = Adam(len(tasks), lr)

    @property
    def task_weights_T(self) -> Tensor:  # noqa: N802, ends in its shape
        return self.lambdas_T

    def weigh(self, losses: TaskLosses) -> Tensor:
        return self.lambdas_T

    def learn_from_lookahead(self, slopes_T: Tensor, rate: float) -> None:
        if not slopes_T.isfinite().all():
            return

        # a slope of exactly 0 is that of a task without labels, whose weight stays
        change_T = self.adam.step(-rate * slopes_T.double(), slopes_T != 0)
        self.lambdas_T.sub_(change_T).clamp_(min=0)
