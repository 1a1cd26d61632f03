"""The effect of the coming step on the losses of another batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def lookahead_slopes(
    losses: Callable[[], Tensor],
    other_losses: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter],
    weights_T: Tensor,
    rate: float,
    global_sum: Callable[[Tensor], Tensor],
) -> Tensor:
    """Returns the slopes <v, g_t> (T,) of the losses along the gradient v of another batch.

    A step of gradient descent leads to theta' = theta - rate sum_t w_t g_t, and v is the gradient
    of the other batch's summed losses at theta'. These losses change with w_t by -rate <v, g_t>
    (Liu et al., "Auto-Lambda", TMLR 2022). The parameters are moved there and back.

    Args:
        losses: Returns this rank's share of the losses (T,) over the global batch, in a new graph.
        other_losses: Returns the same for the other batch.
        parameters: The parameters that a step moves.
        weights_T: (T,) The weights of the tasks in the step.
        rate: The length of the step.
        global_sum: Sums a tensor over all ranks, in place.
    """
    places: list[Tensor] = list(parameters)
    sizes = [p.numel() for p in places]

    def gradient(total: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(total, places, materialize_grads=True)
        flat = torch.cat([part.flatten().to(total.device) for part in found])
        pieces = global_sum(flat).split(sizes)
        return [piece.view_as(p).to(p.device) for piece, p in zip(pieces, places, strict=True)]

    # there, and the other batch's gradient
    now_T = losses()
    step = gradient(torch.dot(weights_T.to(now_T), now_T))
    kept = [p.detach().clone() for p in places]
    with torch.no_grad():
        for p, change in zip(places, step, strict=True):
            p.add_(change, alpha=-rate)
    v = gradient(other_losses().sum())

    # and back
    with torch.no_grad():
        for p, before in zip(places, kept, strict=True):
            p.copy_(before)

    # u'J is linear in u: its derivative along v is <v, g_t> for all t at once
    # fused attention has no second derivative
    with sdpa_kernel(SDPBackend.MATH):
        now_T = losses()
    u = torch.zeros_like(now_T, requires_grad=True)
    along = torch.autograd.grad(now_T, places, u, create_graph=True, materialize_grads=True)
    (slopes_T,) = torch.autograd.grad(along, u, v)
    return global_sum(slopes_T.detach())
