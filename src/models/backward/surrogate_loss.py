"""A scalar whose backward pass leaves gradients that were decided on.

Automatic optimisation then goes on as for a plain loss: DDP's averaging, accumulation, clipping,
loss scaling and any optimizer work on the wanted gradients.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class SurrogateLoss(torch.autograd.Function):
    """A value whose backward pass leaves the wanted gradients at the given tensors."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, wanted: Sequence[Tensor], *places: Tensor) -> Tensor:
        """Returns the value.

        Args:
            ctx: Autograd's context.
            value: The scalar to report as the loss.
            wanted: A gradient for each place.
            places: The tensors that receive the gradients: parameters, or activations in a graph.
        """
        ctx.wanted = wanted
        ctx.kinds = [(place.device, place.dtype) for place in places]
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> Any:
        """Returns the wanted gradients, times whatever the value was multiplied by."""
        # on a GPU, finding out that the scale is 1 would take longer than multiplying
        if scale.device.type == "cpu" and float(scale) == 1.0:
            wanted = ctx.wanted
        else:
            wanted = [gradient * scale.to(gradient.device) for gradient in ctx.wanted]
        pairs = zip(wanted, ctx.kinds, strict=True)
        return None, None, *(gradient.to(*kind) for gradient, kind in pairs)
