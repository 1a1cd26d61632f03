"""The two types that every room knows: the batch, and the shape of its inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

PADDING = -1  # the id of a row that only fills up a batch; all its labels are missing


@dataclass(frozen=True)
class InputShape:
    """The shape of one sample: its dense input, and the vocabularies of columns or of tokens.

    Attributes:
        dense: Shape without the batch: (features,), (channels, height, width) ...
        categories: One vocabulary size per categorical column, with the bucket for unseen values.
        tokens: Vocabulary size of a sequence of tokens; 0 if there is none. Token 0 pads short
            sequences.
        parts: Vocabulary size of the pieces of a token (characters, subwords); 0 if there are none.
            Piece 0 pads short tokens.
    """

    dense: tuple[int, ...] = ()
    categories: tuple[int, ...] = ()
    tokens: int = 0
    parts: int = 0

    def example(self, rows: int = 2, length: int = 5) -> Tensor | dict[str, Tensor]:
        """Returns inputs of this shape, always the same, to try out a network before training.

        Args:
            rows: Number of samples.
            length: Tokens of the longest sequence; every second sequence is shorter.
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
        columns = [integers(0, n, rows, 1) for n in self.categories]
        return {"dense": dense, "categorical": torch.cat(columns, 1)}


@dataclass(slots=True)
class Batch:
    """One rank's share of a global batch.

    Attributes:
        inputs: The dense input (B, *shape); or a dict of 'dense' (B, F) and 'categorical'
            (B, columns); or a dict of 'tokens' (B, S) and perhaps 'parts' (B, S, P).
        targets: {task: (B,) or (B, L), or (B, ..., S) with a label for each token or pixel}. A
            missing label is NaN in float targets and -100 in integer targets.
        ids: (B,) row numbers in the data set; ``PADDING`` marks rows that only fill up the batch.
        extras: Other columns that belong to the rows, such as groups.
    """

    inputs: Tensor | dict[str, Tensor]
    targets: dict[str, Tensor]
    ids: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves or casts every tensor; takes the arguments of ``Tensor.to``."""

        def move(tensor: Tensor) -> Tensor:
            # the copy of a pinned tensor need not be waited for
            return tensor.to(*args, **{"non_blocking": tensor.is_pinned(), **kwargs})

        return self._map(move)

    def pin_memory(self) -> Self:
        """Pins every tensor for a faster copy to a GPU."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Returns a batch of the results of a function of each tensor."""

        def apply(value: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
            if isinstance(value, dict):
                return {name: function(tensor) for name, tensor in value.items()}
            return function(value)

        changes = {each.name: apply(getattr(self, each.name)) for each in fields(self)}
        return replace(self, **changes)  # type: ignore[arg-type]  # each of its field's own type
