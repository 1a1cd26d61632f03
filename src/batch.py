"""What travels through the house: the batch, and the shape of its inputs."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

PADDING = -1  # the id of a row that only fills up a batch; all its labels are missing


@dataclass(frozen=True)
class InputShape:
    """What an encoder reads: the shape of one sample's dense input, and the size of each categorical column's vocabulary.

    Attributes:
        dense: Shape without the batch: (features,), (channels, height, width) ...
        categories: One vocabulary size per categorical column, the bucket for unseen values included.
    """

    dense: tuple[int, ...]
    categories: tuple[int, ...] = ()


@dataclass(slots=True)
class Batch:
    """One rank's share of a global batch.

    Attributes:
        inputs: The dense input (B, *shape), or a dict with 'dense' (B, F) and 'categorical' (B, columns).
        targets: {task: (B,) or (B, L)}; missing labels are NaN in float and -100 in integer targets.
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
        return self._map(lambda tensor: tensor.to(*args, **{"non_blocking": tensor.is_pinned(), **kwargs}))

    def pin_memory(self) -> Self:
        """Pins every tensor for a faster copy to a GPU."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, function: Any) -> Self:
        def mapped(value: Any) -> Any:
            return {k: function(v) for k, v in value.items()} if isinstance(value, dict) else function(value)

        return replace(self, **{f.name: mapped(getattr(self, f.name)) for f in fields(self)})
