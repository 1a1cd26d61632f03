"""What a step will do to another batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def slopes_ahead(
    losses: Callable[[], Tensor],
    others: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter],
    weights_T: Tensor,
    rate: float,
    global_sum: Callable[[Tensor], Tensor],
) -> Tensor:
    """The derivatives <v, g_t> of the losses along v, the gradient of the sum of another batch's losses after the step.

    The step is theta' = theta - rate sum_t w_t g_t; the other batch's losses change with w_t by
    -rate <v, g_t>. The parameters are moved there and back.

    Args:
        losses: This rank's share of the losses (T,) over the global batch.
        others: The same of the other batch.
        parameters: All that a step moves.
        weights_T: (T,)
        rate: Length of the step.
        global_sum: Sums over all ranks.
    """
    places: list[Any] = list(parameters)

    def gradient(total: Tensor) -> list[Tensor]:
        parts = torch.autograd.grad(total, places, materialize_grads=True)
        whole = global_sum(torch.cat([part.flatten().to(total.device) for part in parts]))
        return [
            part.view_as(p).to(p.device)
            for part, p in zip(whole.split([p.numel() for p in places]), places, strict=True)
        ]

    now_T = losses()
    step = gradient(torch.dot(weights_T.to(now_T), now_T))
    kept = [p.detach().clone() for p in places]
    with torch.no_grad():
        torch._foreach_add_(places, step, alpha=-rate)
    v = gradient(others().sum())
    with torch.no_grad():
        torch._foreach_copy_(places, kept)
    now_T = losses()
    u = torch.zeros_like(
        now_T, requires_grad=True
    )  # u'J is linear in u: its derivative along v is <v, g_t> for all t at once
    along = torch.autograd.grad(now_T, places, u, create_graph=True, materialize_grads=True)
    (slopes_T,) = torch.autograd.grad(along, u, v)
    return global_sum(slopes_T.detach())
