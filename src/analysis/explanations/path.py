"""The straight path from a baseline to a row, on which each feature has a position of its own.

A feature is a part of a row that gets one attribution: a column of a table with its indicator of
missing values, a pixel, a token. At position 0 a feature is what the baseline has, at 1 what the
row has. Numbers are interpolated themselves; words and tokens have no numbers between them, so
their embeddings are: e(b) + s (e(x) - e(b)).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Inputs = Tensor | dict[str, Tensor]

CODES = ("categorical", "tokens", "parts")  # inputs of positions in a vocabulary
SEQUENCES = ("tokens", "parts")  # inputs in which 0 is padding
EMPTY = -1  # the baseline of a token: no word, whose embedding is 0
FIRST_POINTER = 1 << 40  # above every position in a vocabulary


@dataclass(frozen=True)
class Features:
    """The features of a row, and where each lies in the inputs.

    Attributes:
        names: A name for each of the F features.
        columns: The columns of the data.
        column_of: (F,) The number of the column of each feature.
        places: {key of an input: the feature of each place}, in a shape that broadcasts to that of
            a sample.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    column_of: Tensor
    places: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.names)

    def sum_by_column(self, values: Tensor) -> Tensor:
        """Sums values (N, F) of features to values (N, columns)."""
        sums = values.new_zeros(len(values), len(self.columns))
        return sums.index_add(1, self.column_of, values)


class InputPath:
    """Rows, and the path to each from a baseline.

    Args:
        inputs: The rows.
        baselines: {key: (K, ...)} one baseline for all rows, or several, and each call names
            its own. The baseline of a position in a vocabulary is one, or ``EMPTY``.
        features: The features.
    """

    def __init__(self, inputs: Inputs, baselines: Mapping[str, Tensor], features: Features) -> None:
        self.bare = isinstance(inputs, Tensor)
        self.inputs = {"dense": inputs} if isinstance(inputs, Tensor) else inputs
        self.baselines = baselines
        self.features = features

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def find_real(self) -> Tensor:
        """Returns which features each row has, bool (N, F): all but those at padding."""
        real = torch.ones(len(self), len(self.features), dtype=torch.bool)
        for key, values in self.inputs.items():
            if key.rpartition("/")[2] == "tokens":
                real[:, self.features.places[key]] = values > 0
        return real

    def at(
        self, positions: Tensor, rows: Tensor, baselines: Tensor | None = None
    ) -> tuple[Inputs, "EmbeddingPath"]:
        """Returns points on the path, and what the network has to run under.

        Args:
            positions: (M, F) in [0, 1].
            rows: (M,) The number of the row of each point.
            baselines: (M,) The number of the baseline of each point; None: there is one.

        Returns:
            Inputs of M rows, in which positions in a vocabulary are pointers, and the mode that
            knows their embeddings.
        """
        chosen = torch.zeros_like(rows) if baselines is None else baselines
        found: dict[str, Tensor] = {}
        path = EmbeddingPath()
        for key, values in self.inputs.items():
            own = values[rows]
            base = self.baselines[key][chosen]
            # a view, since a pixel's channels have one position
            s = positions[:, self.features.places[key]].expand(own.shape)
            if key.rpartition("/")[2] not in CODES:
                found[key] = torch.lerp(base, own, s.to(own.dtype))
                continue
            pads = key.rpartition("/")[2] in SEQUENCES
            found[key] = path.add(own, base.expand(own.shape), s, pads)
        return (found["dense"] if self.bare else found), path

    def exchange(self, origins: Tensor) -> Inputs:
        """Returns rows in which each feature comes from some row.

        Args:
            origins: (M, F) The number of the row that gives the feature.
        """
        found: dict[str, Tensor] = {}
        for key, values in self.inputs.items():
            own = origins[:, self.features.places[key]].expand(len(origins), *values.shape[1:])
            found[key] = values.gather(0, own)
        return found["dense"] if self.bare else found


class EmbeddingPath(TorchFunctionMode):
    """Gives each embedding that a network looks up its own position between two embeddings.

    In place of positions in a vocabulary the network gets pointers. They pass through whatever it
    does to them (it copies, repeats and reorders them, and compares them with 0, the padding), and
    are resolved where it looks up an embedding.
    """

    def __init__(self) -> None:
        super().__init__()
        self.codes: list[Tensor] = []
        self.baselines: list[Tensor] = []
        self.positions: list[Tensor] = []
        self.count = 0

    def add(self, codes: Tensor, baselines: Tensor, positions: Tensor, pads: bool) -> Tensor:
        """Returns pointers in place of positions in a vocabulary.

        Args:
            codes: The positions of the row.
            baselines: The positions of the baseline, of the same shape.
            positions: Where each stands between the two.
            pads: Whether 0 is padding, which stays.
        """
        pointers = torch.arange(codes.numel()).view(codes.shape) + self.count + FIRST_POINTER
        self.count += codes.numel()
        self.codes.append(codes.flatten().long())
        self.baselines.append(baselines.flatten().long())
        self.positions.append(positions.flatten())
        return pointers.where(codes > 0, 0) if pads else pointers

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.embedding and has_pointers(args[0]):
            return self._resolve(lambda codes: func(codes, *args[1:], **kwargs), args[0])
        # embeddings of several encoders side by side: weight[:, codes]
        if func == Tensor.__getitem__ and isinstance(args[1], tuple):
            first, *rest = args[1]
            if first == slice(None) and len(rest) == 1 and has_pointers(rest[0]):
                return self._resolve(lambda codes: args[0][:, codes], rest[0])
        return func(*args, **kwargs)

    def _resolve(self, look_up: Any, pointers: Tensor) -> Tensor:
        """Returns the embeddings between the ones of baselines and the ones of rows."""
        known = pointers >= FIRST_POINTER
        index = (pointers - FIRST_POINTER).clamp(min=0)
        # a number that the network itself has put there, such as a token of padding, stays
        codes = torch.cat(self.codes)[index].where(known, pointers)
        base_codes = torch.cat(self.baselines)[index].where(known, pointers)
        s = torch.cat(self.positions)[index].where(known, 1.0)

        end = look_up(codes)
        start = look_up(base_codes.clamp(min=0))
        start = start.masked_fill((base_codes == EMPTY)[..., None], 0)
        return torch.lerp(start, end, s[..., None].to(end.dtype).expand_as(end))


def has_pointers(values: object) -> bool:
    """Returns whether a tensor holds a pointer."""
    if not isinstance(values, Tensor) or values.dtype != torch.int64:
        return False
    return bool((values >= FIRST_POINTER).any())
