"""The affinities of tasks: how a step on one task's loss alone changes the losses of all tasks.

With L_j the loss of task j over the global batch, g_i the gradient of L_i in the shared parameters
theta, and r the learning rate, the affinity of task i for task j is

    lookahead    Z_ij = 1 - L_j(theta - r g_i) / L_j(theta)
    first order  Z_ij = r <g_i, g_j> / L_j(theta)

It is above 0 where i helps j. The first is the inter-task affinity of Fifty et al. ("Efficiently
identifying task groupings for multi-task learning", NeurIPS 2021, arXiv 2109.04617) for a plain
gradient step; the second is its first-order term. Heads, and parameters of one task alone, stay.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from src.batch import Batch
from src.collectives import global_sum
from src.models.settings import refuse_factors

if TYPE_CHECKING:
    from src.models.step import TrainingStep


def measure_affinities(step: "TrainingStep", batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns the affinities (T, T) by lookahead and to first order, in float64; row helps column.

    Losses are plain: without fixed weights, the balancer and the penalty of the architecture. An
    entry is NaN where a task has no label in the global batch, where a loss is not above 0, and
    everywhere while the learning rate is 0. It takes T backward passes and T + 2 forward passes,
    and leaves parameters, buffers and gradients as they were.

    Args:
        step: The training step of a model that is being fitted.
        batch: This process's share of a global batch.
    """
    refuse_factors(step.model, "affinities compare gradients of tasks")
    jacobian = step.jacobian
    rate = read_rate(step)
    modules = (step.model.sharing, step.model.heads)
    with preserve([buffer for module in modules for buffer in module.buffers()]):
        # the same units are dropped in every pass
        step.seed_randomness(batch)
        rows_TP, totals_2T = step.parameter_rows(batch)
        counts_T = totals_2T[1].double()
        inverse_T = invert_counts(counts_T)
        gram_TT = jacobian.gramian(rows_TP) * inverse_T * inverse_T[:, None]

        before_T = sum_losses(step, batch) * inverse_T
        after_TT = torch.full_like(gram_TT, torch.nan)
        for i in counts_T.nonzero().flatten().tolist():
            direction = jacobian.split(rows_TP[i] * inverse_T[i].to(rows_TP.dtype))
            with preserve(jacobian.shared), torch.no_grad():
                for p, gradient in zip(jacobian.shared, direction, strict=True):
                    p.sub_(gradient.to(p.device), alpha=rate)
                after_TT[i] = sum_losses(step, batch) * inverse_T

    lookahead_TT = 1 - after_TT / before_T
    first_order_TT = rate * gram_TT / before_T
    defined_TT = (counts_T > 0)[:, None] & (counts_T > 0) & (before_T > 0) & (rate > 0)
    undefined_TT = ~defined_TT
    return (
        lookahead_TT.masked_fill(undefined_TT, torch.nan),
        first_order_TT.masked_fill(undefined_TT, torch.nan),
    )


@torch.no_grad()
def sum_losses(step: "TrainingStep", batch: Batch) -> Tensor:
    """Returns the sums of the tasks' losses (T,) over the global batch, in float64."""
    model = step.model
    step.seed_randomness(batch)
    features = model.runner.features(model, batch.inputs)
    outputs = model.runner.outputs(model, features)
    sums_T, _ = model.heads.loss_sums(outputs, batch.targets, batch.weights)
    return global_sum(sums_T.double())


def invert_counts(counts_T: Tensor) -> Tensor:
    """Returns 1 / counts (T,), and 1 where a task has no label; a sum of weights may be below 1."""
    return 1 / counts_T.masked_fill(counts_T == 0, 1)


def read_rate(step: "TrainingStep") -> float:
    """Returns the learning rate of the shared parameters, the largest where groups have several."""
    shared = {id(p) for p in step.jacobian.shared}
    [optimizer] = step.model.trainer.optimizers
    rates = [
        float(group["lr"])
        for group in optimizer.param_groups
        if any(id(p) in shared for p in group["params"])
    ]
    return max(rates, default=0.0)


@contextmanager
def preserve(tensors: Sequence[Tensor | nn.Parameter]) -> Iterator[None]:
    """Restores the values of tensors at the end."""
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in zip(tensors, kept, strict=True):
                tensor.copy_(before)
