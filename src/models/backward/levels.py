"""Steps by the gradients of tasks: what each task wants of the shared part, weighed by a balancer, in one backward pass.

Autograd is handed a scalar whose backward pass leaves exactly the gradients that were decided on,
so that everything around the step (DDP's averaging, accumulation, clipping, loss scaling, any
optimizer) works as it does for a plain loss. With n_t the labels of task t in the global batch and
S_t the sum of its losses on this rank, L_t = W S_t / n_t is averaged over W ranks: all sums over
ranks need one collective, of the sums, the counts and, at features level, the T x T Gramian of the
sums.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.balancing import Coordinates, GradientBalancer, GramianBalancer, TaskLosses
from src.collectives import global_sum, replica
from src.models.backward.jacobian import ParameterJacobian
from src.models.heads import HeadGradients
from src.parallel.dtensor import scaled


class SurrogateLoss(torch.autograd.Function):
    """A value whose backward pass leaves wanted gradients at given places."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, wanted: Sequence[Tensor], *places: Tensor) -> Tensor:
        """Returns the value."""
        ctx.wanted, ctx.kinds = wanted, [(place.device, place.dtype) for place in places]
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> Any:
        """Returns the wanted gradients times whatever the value was multiplied by."""
        if (
            scale.device.type == "cpu" and float(scale) == 1.0
        ):  # on a GPU it would take longer to find out
            return None, None, *(w.to(*kind) for w, kind in zip(ctx.wanted, ctx.kinds, strict=True))
        return (
            None,
            None,
            *(
                scaled(w, scale.to(w.device)).to(*kind)
                for w, kind in zip(ctx.wanted, ctx.kinds, strict=True)
            ),
        )


def feature_gramian(deltas: HeadGradients, W_OD: Tensor, totals_2T: Tensor) -> Tensor:
    """The Gramian (T, T) of the sums of losses over the global batch; the totals come along in the same collective."""
    T = totals_2T.shape[1]
    parts = global_sum(torch.cat([totals_2T.flatten().double(), deltas.gram(W_OD).flatten()]))
    totals_2T.copy_(parts[: 2 * T].view(2, T))
    return parts[2 * T :].view(T, T)


def at_features(
    balancer: GramianBalancer | GradientBalancer,
    z: Tensor,
    deltas: HeadGradients,
    totals_2T: Tensor,
    scale: Callable[[Tensor], tuple[TaskLosses, Tensor]],
) -> tuple[TaskLosses, Tensor, Tensor | None]:
    """One backward pass through the encoder, along what the balancer makes of the tasks' gradients with respect to the features.

    Args:
        balancer: Decides.
        z: (B, ..., D) the features that all tasks share, in the encoder's graph.
        deltas: The heads' gradients, of the sums of the losses.
        totals_2T: (2, T) sums of losses and counts of labels on this rank; after the call over all
            ranks.
        scale: Maps totals to the losses and to what turns a sum's gradient into that of the loss
            that ranks average, (T,).

    Returns:
        The losses, the scalar, and the weights of the tasks in what they share (T,), where there
        are some.
    """
    rank, ranks = replica()
    weights_T: Tensor | None = None
    if isinstance(balancer, GramianBalancer):
        W_OD = deltas.stacked()
        gram_TT = feature_gramian(deltas, W_OD, totals_2T)
        losses, scale_T = scale(totals_2T)
        single_T = scale_T / ranks
        weights_T, own_T = balancer(losses, gram_TT * single_T * single_T[:, None])
        weights_T = weights_T.to(scale_T)
        dz = deltas.combined(weights_T * scale_T, W_OD)
    else:
        losses, scale_T = scale(global_sum(totals_2T))
        rows = deltas.together().flatten(1) * (scale_T / ranks)[:, None]
        where = Coordinates(rank * rows.shape[1], z.detach().flatten(1), global_sum)
        dz = balancer(rows, losses, where) * ranks
        own_T = balancer.head_weights(losses)
    places, gradients = deltas.heads(scale_T if own_T is None else own_T.to(scale_T) * scale_T)
    value = losses.global_T.sum() if weights_T is None else torch.dot(weights_T, losses.global_T)
    return losses, SurrogateLoss.apply(value, [dz.view_as(z), *gradients], z, *places), weights_T


def at_parameters(
    balancer: GramianBalancer | GradientBalancer,
    features: Mapping[str, Tensor],
    reached: ParameterJacobian,
    deltas: HeadGradients,
    totals_2T: Tensor,
    scale: Callable[[Tensor], tuple[TaskLosses, Tensor]],
    several: bool,
    gather: Callable[[Tensor, TaskLosses], tuple[Tensor, TaskLosses, float] | None],
) -> tuple[TaskLosses, Tensor, Tensor | None]:
    """One backward pass through the encoder per task, then one collective of the T x P gradients.

    Args:
        balancer: Decides.
        features: {task: its features (B, ..., D)} in the order of T, in the encoder's graph.
        reached: The parameters of the sharing architecture.
        deltas: The heads' gradients, of the sums of the losses.
        totals_2T: (2, T) sums of losses and counts of labels on this rank; after the call over all
            ranks.
        scale: As above.
        several: Whether a step has several micro-batches.
        gather: Takes the rows of a micro-batch; gives those of the whole step, its losses, and a
            factor for the direction, or None before the last micro-batch.

    Returns:
        As above.
    """
    _, ranks = replica()
    tops = list(features.values())
    along = [row.view_as(z) for row, z in zip(deltas.rows(), tops, strict=True)]
    rows_TP = reached.rows(
        tops,
        along,
        totals_2T,
        whole_rows=not isinstance(balancer, GramianBalancer) or balancer.tracks,
    )
    losses, scale_T = scale(totals_2T)
    single_T = scale_T / ranks
    simple = isinstance(balancer, GramianBalancer) and not balancer.tracks and not several
    if not simple:
        rows_TP *= single_T[:, None]

    own_T: Tensor | None = None
    weights_T: Tensor | None = None
    wanted: list[Tensor] = []
    step = (rows_TP, losses, 1.0) if not several else gather(rows_TP, losses)
    if step is None:
        wanted = [torch.zeros_like(p) for p in reached.shared]
    else:
        rows_TP, step_losses, factor = step
        if simple:  # T factors instead of T x P products
            weights_T, own_T = balancer(
                step_losses, reached.gram(rows_TP) * single_T * single_T[:, None]
            )
            direction = (weights_T.to(rows_TP) * single_T) @ rows_TP
        elif isinstance(balancer, GramianBalancer):
            rows_TP = balancer.track(rows_TP, step_losses)
            weights_T, own_T = balancer(step_losses, reached.gram(rows_TP))
            direction = weights_T.to(rows_TP) @ rows_TP
        else:
            direction = balancer(rows_TP, step_losses)
            own_T = balancer.head_weights(step_losses)
        wanted = reached.parts(direction * factor)
    own_scale_T = scale_T if own_T is None else own_T.to(scale_T) * scale_T
    places, gradients_ = deltas.heads(own_scale_T)
    if reached.private:
        wanted += reached.own(
            tops, [(dz * s).to(z.dtype) for dz, s, z in zip(along, own_scale_T, tops, strict=True)]
        )
    value = (
        losses.global_T.sum()
        if weights_T is None
        else torch.dot(weights_T.to(losses.global_T), losses.global_T)
    )
    return (
        losses,
        SurrogateLoss.apply(
            value, [*wanted, *gradients_], *reached.shared, *reached.private, *places
        ),
        weights_T,
    )
