"""Steps by the gradients of tasks: what each task wants of the shared part, weighed by a balancer, in one backward pass.

Autograd is handed a scalar whose backward pass leaves exactly the gradients that were decided on, so that everything around the
step (DDP's averaging, accumulation, clipping, loss scaling, any optimizer) works as it does for a plain loss. With n_t the labels
of task t in the global batch and S_t the sum of its losses on this rank, L_t = W S_t / n_t is averaged over W ranks: all sums over
ranks need one collective, of the sums, the counts and, at features level, the T x T Gramian of the sums.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from src.balancing import GradientBalancer, GramianBalancer, TaskLosses
from src.models.heads import Deltas, inner_products
from src.parallel.replicas import global_sum, replica


class Steer(torch.autograd.Function):
    """A value whose backward pass leaves wanted gradients at given places."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, wanted: Sequence[Tensor], *places: Tensor) -> Tensor:
        """Returns the value."""
        ctx.wanted, ctx.types = wanted, [place.dtype for place in places]
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> Any:
        """Returns the wanted gradients times whatever the value was multiplied by."""
        if scale.device.type == "cpu" and float(scale) == 1.0:  # on a GPU it would take longer to find out
            return None, None, *(w.to(kind) for w, kind in zip(ctx.wanted, ctx.types, strict=True))
        return None, None, *((w * scale).to(kind) for w, kind in zip(ctx.wanted, ctx.types, strict=True))


def feature_gramian(deltas: Deltas, W_OD: Tensor, totals_2T: Tensor) -> Tensor:
    """The Gramian (T, T) of the sums of losses over the global batch; the totals come along in the same collective."""
    T = totals_2T.shape[1]
    parts = global_sum(torch.cat([totals_2T.flatten().double(), deltas.gram(W_OD).flatten()]))
    totals_2T.copy_(parts[: 2 * T].view(2, T))
    return parts[2 * T :].view(T, T)


def at_features(
    balancer: GramianBalancer | GradientBalancer,
    z: Tensor,
    deltas: Deltas,
    totals_2T: Tensor,
    scale: Callable[[Tensor], tuple[TaskLosses, Tensor]],
) -> tuple[TaskLosses, Tensor, Tensor | None]:
    """One backward pass through the encoder, along what the balancer makes of the tasks' gradients with respect to the features.

    Args:
        balancer: Decides.
        z: (B, ..., D) the features that all tasks share, in the encoder's graph.
        deltas: The heads' gradients, of the sums of the losses.
        totals_2T: (2, T) sums of losses and counts of labels on this rank; after the call over all ranks.
        scale: Maps totals to the losses and to what turns a sum's gradient into that of the loss that ranks average, (T,).

    Returns:
        The losses, the scalar, and the weights of the tasks in what they share (T,), where there are some.
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
        dz = balancer(rows, losses, rank * rows.shape[1]) * ranks
        own_T = balancer.head_weights(losses)
    places, gradients = deltas.heads(scale_T if own_T is None else own_T.to(scale_T) * scale_T)
    value = losses.global_T.sum() if weights_T is None else torch.dot(weights_T, losses.global_T)
    return losses, Steer.apply(value, [dz.view_as(z), *gradients], z, *places), weights_T


def at_parameters(
    balancer: GramianBalancer | GradientBalancer,
    features: Mapping[str, Tensor],
    shared: Sequence[nn.Parameter],
    private: Sequence[nn.Parameter],
    deltas: Deltas,
    totals_2T: Tensor,
    scale: Callable[[Tensor], tuple[TaskLosses, Tensor]],
    several: bool,
    gather: Callable[[Tensor, TaskLosses], tuple[Tensor, TaskLosses, float] | None],
) -> tuple[TaskLosses, Tensor, Tensor | None]:
    """One backward pass through the encoder per task, then one collective of the T x P gradients.

    Args:
        balancer: Decides.
        features: {task: its features (B, ..., D)} in the order of T, in the encoder's graph.
        shared: The parameters that tasks share.
        private: Those of the sharing architecture that belong to one task; they follow their task's own gradient.
        deltas: The heads' gradients, of the sums of the losses.
        totals_2T: (2, T) sums of losses and counts of labels on this rank; after the call over all ranks.
        scale: As above.
        several: Whether a step has several micro-batches.
        gather: Takes the rows of a micro-batch; gives those of the whole step, its losses, and a factor for the direction, or None
            before the last micro-batch.

    Returns:
        As above.
    """
    _, ranks = replica()
    sizes = [p.numel() for p in shared]
    tops = list(features.values())
    along = [row.view_as(z) for row, z in zip(deltas.rows(), tops, strict=True)]
    rows_TP = through_encoder(tops, along, shared, totals_2T)
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
        wanted = [torch.zeros_like(p) for p in shared]
    else:
        rows_TP, step_losses, factor = step
        if simple:  # T factors instead of T x P products
            weights_T, own_T = balancer(step_losses, inner_products(rows_TP) * single_T * single_T[:, None])
            direction = (weights_T.to(rows_TP) * single_T) @ rows_TP
        elif isinstance(balancer, GramianBalancer):
            rows_TP = balancer.track(rows_TP, step_losses)
            weights_T, own_T = balancer(step_losses, inner_products(rows_TP))
            direction = weights_T.to(rows_TP) @ rows_TP
        else:
            direction = balancer(rows_TP, step_losses)
            own_T = balancer.head_weights(step_losses)
        wanted = [part.view_as(p) for part, p in zip((direction * factor).split(sizes), shared, strict=True)]
    own_scale_T = scale_T if own_T is None else own_T.to(scale_T) * scale_T
    places, gradients_ = deltas.heads(own_scale_T)
    if private:
        ups = [(dz * s).to(z.dtype) for dz, s, z in zip(along, own_scale_T, tops, strict=True)]
        wanted += [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(private, torch.autograd.grad(tops, private, ups, allow_unused=True), strict=True)
        ]
    value = losses.global_T.sum() if weights_T is None else torch.dot(weights_T.to(losses.global_T), losses.global_T)
    return losses, Steer.apply(value, [*wanted, *gradients_], *shared, *private, *places), weights_T


def through_encoder(tops: Sequence[Tensor], along: Sequence[Tensor], shared: Sequence[nn.Parameter], totals_2T: Tensor) -> Tensor:
    """The gradients (T, P) of the sums of losses over the global batch, one backward pass each; the graph stays.

    Args:
        tops: Each task's features.
        along: Its gradient with respect to them.
        shared: The parameters.
        totals_2T: Sums and counts of this rank; they become those of all ranks in the same collective.
    """
    sizes = [p.numel() for p in shared]
    like = shared[0] if shared else totals_2T
    rows = torch.empty(len(tops), sum(sizes) + 2, device=like.device, dtype=like.dtype)
    for row, z, dz in zip(rows if shared else (), tops, along, strict=bool(shared)):
        up = power_of_two(dz) if z.dtype == torch.float16 else 1.0
        gradients = torch.autograd.grad(z, shared, (dz * up).to(z.dtype), retain_graph=True, allow_unused=True)
        for place, gradient in zip(row[:-2].split(sizes), gradients, strict=True):
            if gradient is None:
                place.zero_()
            elif up == 1.0:
                place.copy_(gradient.flatten())
            else:
                torch.div(gradient.flatten(), up, out=place)
    rows[:, -2:] = totals_2T.T
    totals_2T.copy_(global_sum(rows)[:, -2:].T)
    return rows[:, :-2]


def power_of_two(x: Tensor) -> float:
    """What brings the largest entry to about 1024, far from both ends of fp16."""
    largest = float(x.abs().max())
    return 2.0 ** round(10 - torch.tensor(largest).log2().item()) if 0 < largest < float("inf") else 1.0
