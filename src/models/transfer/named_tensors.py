"""Tensors whose positions have names: values move from one to another by name, not by place."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from src.models.encoders.columns import Axis


@dataclass(frozen=True)
class NamedTensor:
    """A tensor, and the names of its positions.

    Attributes:
        tensor: The tensor.
        axes: {dimension: names of its positions}; a dimension without names counts as a whole.
    """

    tensor: Tensor
    axes: dict[int, Axis] = field(default_factory=dict)

    def plain_shape(self) -> tuple[int | None, ...]:
        """Returns the sizes of dimensions without names; None stands for one with names."""
        shape = enumerate(self.tensor.shape)
        return tuple(None if dim in self.axes else size for dim, size in shape)


@dataclass(frozen=True)
class Copied:
    """The names that did not match when a tensor was filled from another.

    Attributes:
        new: The names that the other one does not have.
        gone: The names that it alone has.
    """

    new: frozenset[Hashable] = frozenset()
    gone: frozenset[Hashable] = frozenset()

    def __or__(self, other: "Copied") -> "Copied":
        return Copied(self.new | other.new, self.gone | other.gone)


def fits(target: NamedTensor, source: NamedTensor) -> bool:
    """Returns whether values can move: the tensors differ in dimensions with names alone."""
    return (
        target.plain_shape() == source.plain_shape()
        and target.tensor.is_floating_point() == source.tensor.is_floating_point()
    )


@torch.no_grad()
def copy_by_name(target: NamedTensor, source: NamedTensor) -> Copied:
    """Fills a tensor from another, each position from the one of its name.

    Args:
        target: The tensor that is changed, in place.
        source: The other one, which ``fits``.

    Returns:
        The names that only one of them has.
    """
    if not target.axes:
        target.tensor.copy_(source.tensor)
        return Copied()

    taken = source.tensor.to(target.tensor.dtype)
    here: list[Tensor] = []
    dims = target.tensor.ndim
    new: set[Hashable] = set()
    gone: set[Hashable] = set()
    zeroed: list[tuple[int, list[int]]] = []
    for dim, size in enumerate(target.tensor.shape):
        axis = target.axes.get(dim)
        if axis is None:
            here.append(spread(range(size), dim, dims))
            continue
        places = {label: place for place, label in enumerate(source.axes[dim].labels)}
        pairs, fresh = pair_positions(axis, places)
        taken = taken.index_select(dim, torch.tensor([there for _, there in pairs]).long())
        here.append(spread([place for place, _ in pairs], dim, dims))
        new |= {label for label in axis.labels if label not in places}
        gone |= {label for label in places if label not in axis.labels}
        if axis.zero:
            zeroed.append((dim, fresh))

    # values first: a position that is zero is so for all positions of the other dimensions
    target.tensor[tuple(here)] = taken
    for dim, fresh in zeroed:
        target.tensor.index_fill_(dim, torch.tensor(fresh).long(), 0)
    return Copied(frozenset(new), frozenset(gone))


def spread(places: Sequence[int], dim: int, dims: int) -> Tensor:
    """Returns places along a dimension as an index that goes with those of the others."""
    return torch.tensor(places).long().view([-1 if d == dim else 1 for d in range(dims)])


def pair_positions(
    axis: Axis, places: dict[Hashable, int]
) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs the positions of a dimension with their places in the source.

    Returns:
        (position, place there) of each position that has one; and the positions without.
    """
    pairs: list[tuple[int, int]] = []
    fresh: list[int] = []
    for position, label in enumerate(axis.labels):
        place = places.get(label, places.get(axis.like) if axis.like is not None else None)
        if place is None:
            fresh.append(position)
        else:
            pairs.append((position, place))
    return pairs, fresh


def name_all(labels: Sequence[Hashable]) -> str:
    """Returns names as a list for people, cut where it is long."""
    words = [str(label) for label in labels]
    return ", ".join(words[:6]) + (f" and {len(words) - 6} more" if len(words) > 6 else "")
