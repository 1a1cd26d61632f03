"""A trained run as the start of another: its weights, and what they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Source:
    """A model that was trained before, as one of its checkpoints holds it.

    Attributes:
        path: Where it is from, for messages: a run folder or a checkpoint.
        state: The state of the model, by the names of its entries.
        tasks: {name: description as ``Task.describe`` gives it}, in the order of T.
        encoder: The class name of its encoder; None where nobody knows.
        sharing: The class name of its sharing architecture; None where nobody knows.
        inputs: The entries of its input columns in its schema; none where inputs have no columns.
        schema: Its schema.json; None where it has none.
        data: The class name of its data module; None where nobody knows.
        model: The section model of its configuration; empty where nobody knows.
        record: What the record of a run that starts here says of it.
    """

    path: str
    state: Mapping[str, Tensor]
    tasks: Mapping[str, Mapping[str, Any]]
    encoder: str | None = None
    sharing: str | None = None
    inputs: Sequence[Mapping[str, Any]] = ()
    schema: str | None = None
    data: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    def entries(self, prefix: str) -> dict[str, Tensor]:
        """Returns the entries of the state below a prefix, by their names without it."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.state.items()
            if name.startswith(prefix)
        }
