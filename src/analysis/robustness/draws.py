"""Random numbers of corruptions: a function of the seed, the corruption, its severity, the row."""

import zlib
from math import prod, sqrt

import torch
from torch import Tensor

from src.rng import GAMMA, draw_uniform_at, hash_integers

LEAST = 2.0**-53  # keeps a normal number finite


class RowDraws:
    """Random numbers of rows, which depend neither on the other rows nor on their order.

    Args:
        seed: The seed.
        corruption: The name of the corruption.
        severity: Its severity.
        ids: (B,) The numbers of the rows.
    """

    def __init__(self, seed: int, corruption: str, severity: int, ids: Tensor) -> None:
        key = torch.tensor(seed)
        for part in (zlib.crc32(corruption.encode()), severity):
            key = hash_integers(key * GAMMA + part)
        self._key = key
        self._ids = ids

    def draw_uniform(self, stream: str, *shape: int) -> Tensor:
        """Returns uniform numbers in [0, 1) for each row, float64 (B, *shape).

        Args:
            stream: Names the numbers: other names have other numbers.
            shape: The shape of the numbers of a row.
        """
        key = hash_integers(self._key * GAMMA + zlib.crc32(stream.encode()))
        of_rows_B = hash_integers(self._ids * GAMMA + key)
        places = of_rows_B[:, None] + torch.arange(prod(shape))
        return draw_uniform_at(0, places).view(len(self._ids), *shape)

    def draw_normal(self, stream: str, *shape: int) -> Tensor:
        """Returns standard normal numbers for each row, float64 (B, *shape)."""
        uniform = self.draw_uniform(stream, *shape).clamp(LEAST, 1 - LEAST)
        return torch.erfinv(2 * uniform - 1) * sqrt(2)
