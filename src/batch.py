"""What travels through the house: the batch, and the shape of its inputs."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

PADDING = -1  # the id of a row that only fills up a batch; all its labels are missing


@dataclass(frozen=True)
class InputShape:
    """What an encoder reads: the shape of one sample's dense input, the vocabularies of categorical columns or of tokens.

    Attributes:
        dense: Shape without the batch: (features,), (channels, height, width) ...
        categories: One vocabulary size per categorical column, the bucket for unseen values
            included.
        tokens: Vocabulary size of a sequence of tokens; 0: there is none. Token 0 fills up short
            sequences.
        parts: Vocabulary size of what each token is made of (characters, subwords); 0: there is
            none. Part 0 fills up short tokens.
    """

    dense: tuple[int, ...] = ()
    categories: tuple[int, ...] = ()
    tokens: int = 0
    parts: int = 0

    def example(self, rows: int = 2, length: int = 5) -> "Tensor | dict[str, Tensor]":
        """Inputs of this shape as a batch holds them, always the same: for what can be found out by trying.

        Args:
            rows: Number of samples.
            length: Tokens of the longest sequence; every second one is shorter.
        """
        generator = torch.Generator().manual_seed(0)

        def integers(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(min(low, high - 1), high, shape, generator=generator)

        if self.tokens:
            tokens = integers(1, self.tokens, rows, length)
            tokens[1::2, -1] = 0
            inputs = {"tokens": tokens}
            if self.parts:
                inputs["parts"] = integers(1, self.parts, rows, length, 3) * (tokens > 0)[..., None]
            return inputs
        dense = torch.randn(rows, *self.dense, generator=generator)
        if not self.categories:
            return dense
        return {
            "dense": dense,
            "categorical": torch.cat([integers(0, n, rows, 1) for n in self.categories], 1),
        }


@dataclass(slots=True)
class Batch:
    """One rank's share of a global batch.

    Attributes:
        inputs: The dense input (B, *shape); or a dict, of 'dense' (B, F) and 'categorical' (B,
            columns), or of 'tokens' (B, S) and 'parts' (B, S, P).
        targets: {task: (B,) or (B, L), or a label for each token or pixel (B, ..., S)}; missing
            labels are NaN in float and -100 in integer targets.
        ids: (B,) row numbers in the data set; ``PADDING`` marks rows that only fill up the batch.
        extras: What rides along, such as group columns.
    """

    inputs: Tensor | dict[str, Tensor]
    targets: dict[str, Tensor]
    ids: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves every tensor, as ``Tensor.to`` does; pinned ones without waiting for each."""
        return self._map(
            lambda tensor: tensor.to(*args, **{"non_blocking": tensor.is_pinned(), **kwargs})
        )

    def pin_memory(self) -> Self:
        """Pins every tensor for a faster copy to a GPU."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, function: Any) -> Self:
        def mapped(value: Any) -> Any:
            return (
                {k: function(v) for k, v in value.items()}
                if isinstance(value, dict)
                else function(value)
            )

        return replace(self, **{f.name: mapped(getattr(self, f.name)) for f in fields(self)})
