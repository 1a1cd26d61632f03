"""Which column of a table a parameter belongs to: so that weights move between tables by name."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from torch import Tensor

UNSEEN = ("unseen",)  # the name of the first position of a vocabulary: words that it lacks


class OfColumn(NamedTuple):
    """The name of an entry that belongs to one column: it comes and goes with it."""

    entry: str
    column: str


@dataclass(frozen=True)
class Axis:
    """The names of the positions along a dimension of a tensor.

    Attributes:
        labels: One name per position.
        zero: Whether a position that is new starts at 0; otherwise it keeps its initial values.
        like: The name of the position that a new one starts as a copy of, if it is to.
    """

    labels: tuple[Hashable, ...]
    zero: bool = False
    like: Hashable | None = None


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table, as a network reads them.

    Attributes:
        dense: A name for each number: (column, value), and (column, missing) where it follows.
        categories: {column: names of the positions of its vocabulary}.
    """

    dense: tuple[tuple[str, str], ...]
    categories: Mapping[str, Axis]

    @property
    def names(self) -> list[str]:
        """The columns, each once."""
        return list(dict.fromkeys([*(name for name, _ in self.dense), *self.categories]))

    @classmethod
    def of_schema(cls, entries: Sequence[Mapping[str, Any]]) -> Self:
        """Returns the columns that a schema lists under inputs."""
        dense: list[tuple[str, str]] = []
        categories: dict[str, Axis] = {}
        for entry in entries:
            name = str(entry["column"])
            if entry["kind"] == "numeric":
                dense.append((name, "value"))
                if entry["indicator"]:
                    dense.append((name, "missing"))
            elif entry["kind"] == "categorical":
                # a new word begins where words stood that nobody knew
                words = (UNSEEN, *entry["vocabulary"])
                categories[name] = Axis(words, like=UNSEEN)
        return cls(tuple(dense), categories)


@runtime_checkable
class ReadsColumns(Protocol):
    """A module that reads the columns of a table, and knows which of its parameters are whose."""

    def name_inputs(
        self, columns: TableColumns, state: Mapping[str, Tensor]
    ) -> dict[str, tuple[Hashable, dict[int, Axis]]]:
        """Names the entries of a state of such a module after columns.

        Args:
            columns: The columns that the module of the state reads.
            state: The state, which may be of several modules side by side: (K, ...).

        Returns:
            {entry: (its name, which does not depend on the number of columns, :class:`OfColumn`
            where it is of one; {dimension, counted from the last: names of its positions})}.
        """
