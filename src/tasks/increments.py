"""Outputs that keep an order by construction: each is the one before plus a softplus."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-30  # a smaller increment is this one, whose inverse is finite


def invert_softplus(increments: Tensor) -> Tensor:
    """Returns x with softplus(x) = increments, exact where these are small or large.

    It is d + log(1 - exp(-d)); increments below ``LEAST`` count as ``LEAST``.
    """
    d = increments.clamp(min=LEAST)
    return d + (-torch.expm1(-d)).log()


def spread_from(outputs: Tensor, middle: int) -> Tensor:
    """Turns outputs (..., Q) into values (..., Q) that increase.

    The output at the place ``middle`` is its value. From there each value is the one before it plus
    softplus of its output, or, to the left, the one after it minus softplus of its output.

    Args:
        outputs: (..., Q) Any numbers.
        middle: The place of the free value.
    """
    centre = outputs[..., middle : middle + 1]
    below = F.softplus(outputs[..., :middle]).flip(-1).cumsum(-1).flip(-1)
    above = F.softplus(outputs[..., middle + 1 :]).cumsum(-1)
    return torch.cat([centre - below, centre, centre + above], -1)


def invert_spread(values: Tensor, middle: int) -> Tensor:
    """Returns the outputs (..., Q) that :func:`spread_from` turns into these increasing values."""
    gaps = invert_softplus(values.diff(dim=-1))
    return torch.cat([gaps[..., :middle], values[..., middle : middle + 1], gaps[..., middle:]], -1)
