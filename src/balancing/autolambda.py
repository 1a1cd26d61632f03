"""Weights learnt by looking one step ahead."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from src.balancing.adam import Adam
from src.balancing.balancer import LossBalancer, TaskLosses
from src.errors import UserError


class AutoLambda(LossBalancer):
    """Weights under which a step helps the losses on another batch most.

    It looks at gradients: those of this batch's losses, and those of another batch after the step.
    The step would lead to theta' = theta - rate sum_t lambda_t g_t, and another batch's losses
    change with lambda_t by -rate <v, g_t>, v the gradient of their sum at theta'. So each step
    first takes v and the slopes <v, g_t> of all losses along it (exactly, where the paper takes
    differences), moves lambda by Adam against -rate <v, g_t>, not below 0, and minimises sum_t
    lambda_t L_t (Liu, James, Davison and Johns, "Auto-Lambda: disentangling dynamic task
    relationships", TMLR 2022). It costs about four plain steps.

    Args:
        tasks: {task: likelihood}.
        lr: Adam's learning rate for lambda.
        first: Where lambda starts.
        batches: Where the other batch comes from: other training rows, so that validation stays out
            of training, or val.
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
        self.batches = batches
        self.register_buffer("lambdas_T", torch.full((len(tasks),), first, dtype=torch.float64))
        self.adam = Adam(len(tasks), lr)

    def weigh(self, losses: TaskLosses) -> Tensor:
        return self.lambdas_T

    def learn(self, slopes_T: Tensor, rate: float) -> None:
        """Moves the weights.

        Args:
            slopes_T: <v, g_t>, by how much each loss grows along v; 0 for a task without labels,
                whose weight stays.
            rate: Learning rate of the network.
        """
        if slopes_T.isfinite().all():
            moved = self.adam.step(-rate * slopes_T.double(), slopes_T != 0)
            self.lambdas_T.sub_(moved).clamp_(min=0)
