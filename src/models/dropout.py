"""Dropout that is the same on any topology."""

import torch
from torch import Tensor, nn

from src.microbatch import place_and_key
from src.rng import GAMMA, MIX, hash_integers


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al., JMLR 2014) whose mask is a function of (seed, step, layer, row of the global batch, unit).

    A mask that each device draws for itself depends on how many there are. This one is a hash:
    device r holds the rows r B to r B + B - 1 of the global batch, and computes their part of the
    one mask, the same on a CPU and on a GPU. The key of a call is drawn from torch's CPU generator,
    which the model seeds with (seed, step) on every rank alike, and which activation checkpointing
    restores.

    Attributes:
        part: Which part of the last dimension reaches this layer, and of how many, where devices
            compute a layer together.
    """

    part: tuple[int, int] = (0, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, ...) -> (B, ...): zero with probability p, else scaled by 1 / (1 - p); in evaluation the input itself."""
        if not self.training or not self.p:
            return input
        rows, units = len(input), torch.arange(input[0].numel(), device=input.device)
        part, parts = self.part
        if parts > 1:
            width = input.shape[-1]
            units = units // width * (width * parts) + part * width + units % width
        first, key = place_and_key(rows)
        kept = mask(key, torch.arange(first, first + rows, device=input.device), units, self.p)
        return input * kept.view_as(input) / (1 - self.p)


def mask(key: int, rows: Tensor, units: Tensor, p: float) -> Tensor:
    """Which units stay: bool (len(rows), len(units)), False with probability p.

    Each row and each unit is hashed by itself; the sum of the two is hashed once more and compared
    with p as a 64-bit integer.
    """
    of_rows = hash_integers(rows * GAMMA + key)
    of_units = hash_integers(units * MIX + key)
    x = of_rows[:, None] + of_units
    x ^= x >> 32
    x *= GAMMA
    x ^= x >> 29
    x *= MIX
    return x >= int((2 * p - 1) * 2**63)  # a signed integer is uniform in [-2^63, 2^63)
