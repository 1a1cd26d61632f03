"""The two types that every room knows: the batch, and the shape of its inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

PADDING = -1  # the id of a row that only fills up a batch; all its labels are missing
# the extra with the number of each row's group of people, from 0; below 0 a row is in none
SENSITIVE = "sensitive"


@dataclass(frozen=True)
class InputShape:
    """The shape of one sample: a table row, an image, a sequence, a graph, or several of these.

    Attributes:
        dense: Shape without the batch: (features,), (channels, height, width) ...
        categories: One vocabulary size per categorical column, with the bucket for unseen values.
        tokens: Vocabulary size of a sequence of tokens; 0 if there is none. Token 0 pads short
            sequences.
        parts: Vocabulary size of the pieces of a token (characters, subwords); 0 if there are none.
            Piece 0 pads short tokens.
        nodes: Number of features of a node of a graph; 0 if a sample is no graph.
        edges: Number of features of an edge of a graph.
        members: (name, shape) of each of several inputs that a sample consists of; the other
            attributes are empty then.
        columns: The column of the table behind each number of ``dense``, then behind each of
            ``categories``; empty where inputs have no names. A number and the indicator of its
            missing values have one column. Shapes that differ in it alone are equal.
    """

    dense: tuple[int, ...] = ()
    categories: tuple[int, ...] = ()
    tokens: int = 0
    parts: int = 0
    nodes: int = 0
    edges: int = 0
    members: tuple[tuple[str, "InputShape"], ...] = ()
    columns: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def example(self, rows: int = 2, length: int = 5) -> Tensor | dict[str, Tensor]:
        """Returns inputs of this shape, always the same, to try out a network before training.

        Args:
            rows: Number of samples.
            length: Tokens of the longest sequence; every second sequence is shorter.
        """
        if self.members:
            several: dict[str, Tensor] = {}
            for name, shape in self.members:
                several |= name_inputs(name, shape.example(rows, length))
            return several
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

        if self.nodes:
            # a chain of nodes; every second graph is shorter
            nodes = torch.randn(rows, length, self.nodes, generator=generator)
            starts = torch.arange(length - 1)
            edges = torch.stack([starts, starts + 1], -1).repeat(rows, 1, 1)
            edges = torch.cat([edges, edges.flip(-1)], 1)
            features = torch.randn(rows, edges.shape[1], self.edges, generator=generator)
            mask = torch.ones(rows, length, dtype=torch.bool)
            mask[1::2, -1] = False
            gone = (edges == length - 1).any(-1) & ~mask[:, -1:]
            return {
                "nodes": nodes * mask[..., None],
                "node_mask": mask,
                "edges": edges.masked_fill(gone[..., None], PADDING),
                "edge_features": features.masked_fill(gone[..., None], 0),
            }

        dense = torch.randn(rows, *self.dense, generator=generator)
        if not self.categories:
            return dense
        columns = [integers(0, n, rows, 1) for n in self.categories]
        return {"dense": dense, "categorical": torch.cat(columns, 1)}


def name_inputs(member: str, inputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the inputs of a member under its name, as {'photo/dense': (B, *shape)}."""
    named = {"dense": inputs} if isinstance(inputs, Tensor) else inputs
    return {f"{member}/{key}": values for key, values in named.items()}


def inputs_of(member: str, inputs: dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Returns the inputs of a member as they were before :func:`name_inputs`."""
    own = {}
    for key, values in inputs.items():
        owner, _, rest = key.rpartition("/")
        if owner == member:
            own[rest] = values
    return own["dense"] if own.keys() == {"dense"} else own


@dataclass(slots=True)
class Batch:
    """One rank's share of a global batch.

    Attributes:
        inputs: The dense input (B, *shape); or a dict of 'dense' (B, F) and 'categorical'
            (B, columns); or of 'tokens' (B, S) and perhaps 'parts' (B, S, P); or, for graphs, of
            'nodes' (B, N, F), 'node_mask' (B, N), 'edges' (B, E, 2) with the numbers of their
            nodes, ``PADDING`` where a graph has fewer, and 'edge_features' (B, E, G). Several
            inputs are one dict, whose keys begin with the member's name: 'photo/dense'.
        targets: {task: (B,) or (B, L), or (B, ..., S) with a label for each token or pixel}. A
            missing label is NaN in float targets and -100 in integer targets.
        ids: (B,) row numbers in the data set; ``PADDING`` marks rows that only fill up the batch.
        extras: Other columns that belong to the rows, such as groups.
        weights: {task: (B,)} The weights of its rows, at least 0; a task that is not there has
            weight 1 in each row. Rows that only fill up the batch have weight 0.
        taught: {task: (B, ..., O)} Outputs of an earlier network, which stand for labels that are
            missing; NaN where they do not.
    """

    inputs: Tensor | dict[str, Tensor]
    targets: dict[str, Tensor]
    ids: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    taught: dict[str, Tensor] = field(default_factory=dict)

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
