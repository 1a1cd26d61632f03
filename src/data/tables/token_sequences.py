"""Sequences of different lengths in memory, filled up when a batch needs them."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor

from src.data.rows import LazyValues


class Sequences(LazyValues):
    """Sequences of tokens, side by side; a batch fills them up with 0 to its longest one.

    Args:
        tokens: (sum of the lengths,) The tokens of all sequences, one after the other.
        starts: (N,) The place of the first token of each.
        lengths: (N,) The number of tokens of each.
    """

    def __init__(self, tokens: Tensor, starts: Tensor, lengths: Tensor) -> None:
        self.tokens = tokens
        self.starts = starts
        self.lengths = lengths

    @classmethod
    def of_lengths(cls, tokens: Tensor, lengths: Tensor) -> Self:
        """Returns the sequences of these lengths (N,), which begin one after the other."""
        return cls(tokens, lengths.cumsum(0) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: Tensor) -> Self:
        # the tokens themselves stay where they are
        return type(self)(self.tokens, self.starts[rows], self.lengths[rows])

    def append(self, other: Self) -> Self:
        starts = torch.cat([self.starts, other.starts + len(self.tokens)])
        lengths = torch.cat([self.lengths, other.lengths])
        return type(self)(torch.cat([self.tokens, other.tokens]), starts, lengths)

    def load(self) -> Tensor:
        """Returns all sequences (N, S) int64, 0 behind the end of each; S is at least 1."""
        longest = max(1, int(self.lengths.max())) if len(self) else 1
        place = torch.arange(longest)
        is_token = place < self.lengths[:, None]
        filled = torch.zeros(len(self), longest, dtype=torch.int64)
        where = (self.starts[:, None] + place)[is_token]
        filled[is_token] = self.tokens[where].long()
        return filled

    def hash_rows(self) -> np.ndarray:
        import pandas as pd

        tokens = self.tokens.numpy()
        spans = zip(self.starts.tolist(), self.lengths.tolist(), strict=True)
        content = [tokens[start : start + length].tobytes() for start, length in spans]
        hashes: np.ndarray = pd.util.hash_array(np.array(content, dtype=object), categorize=False)
        return hashes
