"""Dropout that is the same on any number of devices."""

import torch
from torch import Tensor, nn

from src.microbatch import place_and_key
from src.rng import GAMMA, MIX, hash_integers


class Dropout(nn.Dropout):
    """Dropout with a mask that does not depend on the number of devices.

    The mask (Srivastava et al., "Dropout", JMLR 2014) is a function of the seed, the step, the
    layer, the row of the global batch and the unit. A mask that each device draws for itself would
    depend on how many devices there are. This one is a hash: device r holds the rows r B to r B + B
    - 1 of the global batch, and computes their part of the one mask, the same on a CPU and on a
    GPU. The key of a call is drawn from torch's CPU generator, which the model seeds with
    (seed, step) in every process, and which activation checkpointing restores.

    Attributes:
        part: The number of the slice of the last dimension that reaches this layer, and the number
            of slices, where devices compute a layer together.
    """

    part: tuple[int, int] = (0, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, ...) -> (B, ...): zero with probability p, else scaled by 1 / (1 - p).

        In evaluation it returns its input.
        """
        if not self.training or not self.p:
            return input
        rows = len(input)
        units = torch.arange(input[0].numel(), device=input.device)

        # the places of this slice's units in the whole layer
        part, parts = self.part
        if parts > 1:
            width = input.shape[-1]
            units = units // width * (width * parts) + part * width + units % width

        first, key = place_and_key(rows)
        kept = draw_mask(key, torch.arange(first, first + rows, device=input.device), units, self.p)
        return input * kept.view_as(input) / (1 - self.p)


def draw_mask(key: int, rows: Tensor, units: Tensor, p: float) -> Tensor:
    """Draws the units that stay: bool (len(rows), len(units)), False with probability p.

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
    # a signed integer is uniform in [-2^63, 2^63)
    return x >= int((2 * p - 1) * 2**63)
