"""Git Re-Basin: reorders the units of a network so that they match those of another one.

A network computes the same when the units of a layer change places, if the weights that read them
move along. Networks of different starts have their units in different places, so that an average of
their weights is no network at all; units are brought into the same order first.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from src.analysis.merging.weights import State

# for each tensor the name of the group of units along each dimension; None where nothing moves
Axes = Mapping[str, Sequence[str | None]]
Permutations = dict[str, Tensor]


def match_weights(
    reference: State, state: State, axes: Axes, blocks: Mapping[str, int], sweeps: int = 100
) -> Permutations:
    """Finds the order of units in which a network is nearest to another.

    (Ainsworth, Hayase and Srinivasa, "Git Re-Basin: merging models modulo permutation symmetries",
    ICLR 2023, weight matching.) It maximises sum over tensors of <theta_ref, P theta>, one group of
    units at a time, by linear assignment; each step is exact, and the whole a local optimum. The
    first sweep goes from the inputs upwards, and looks at tensors whose other groups have been
    matched alone, so that the copy of a network with units in another order is found exactly.

    Args:
        reference: The network whose order counts.
        state: The other one.
        axes: The groups of units along each dimension of tensors, in the order from the inputs.
        blocks: {group: number of equal blocks of neighbours that stay together, whose members
            change places within and which change places as a whole}, as the groups of GroupNorm.
        sweeps: Most sweeps over all groups.

    Returns:
        {group: places (n,)}; unit k of the result is unit places[k] of the network.
    """
    sizes: dict[str, int] = {}
    for name, groups in axes.items():
        pairs = zip(groups, reference[name].shape, strict=True)
        sizes |= {group: size for group, size in pairs if group is not None}

    found: Permutations = {}
    for group, size in sizes.items():
        likeness = compare(reference, state, axes, found, group)
        known = likeness.ndim > 0
        found[group] = assign(likeness, blocks.get(group, 1)) if known else torch.arange(size)
    for _ in range(sweeps):
        moved = False
        for group, size in sizes.items():
            likeness = compare(reference, state, axes, found, group)
            places = assign(likeness, blocks.get(group, 1))
            rows = torch.arange(size)
            gain = likeness[rows, places].sum() - likeness[rows, found[group]].sum()
            if gain > 1e-12 * likeness.abs().max():
                found[group] = places
                moved = True
        if not moved:
            break
    return found


def compare(
    reference: State, state: State, axes: Axes, found: Mapping[str, Tensor], group: str
) -> Tensor:
    """Returns how alike each unit of a group is to each of the other network's: (n, n).

    Tensors with a further group that has no order yet do not count; a scalar where none does.
    """
    total = torch.zeros(())
    for name, groups in axes.items():
        others = [other for other in groups if other not in (None, group)]
        if group not in groups or any(other not in found for other in others):
            continue
        moved = permute(state[name].double(), groups, {k: found[k] for k in others if k})
        axis = list(groups).index(group)
        size = moved.shape[axis]
        ours = reference[name].double().movedim(axis, 0).reshape(size, -1)
        theirs = moved.movedim(axis, 0).reshape(size, -1)
        total = total + ours @ theirs.T
    return total


def assign(likeness_NN: Tensor, blocks: int) -> Tensor:
    """Returns the assignment (n,) of columns to rows with the largest sum of likenesses.

    Args:
        likeness_NN: How alike unit k is to each unit of the other network.
        blocks: Number of blocks that stay together. Each pair of blocks has a best assignment
            within; the blocks are assigned by the sums of these, which is the best of all.
    """
    from scipy.optimize import linear_sum_assignment

    likeness = likeness_NN.numpy()
    if blocks == 1:
        return torch.from_numpy(linear_sum_assignment(likeness, maximize=True)[1])
    size = len(likeness) // blocks
    inner: dict[tuple[int, int], np.ndarray] = {}
    sums = np.zeros((blocks, blocks))
    for row in range(blocks):
        for column in range(blocks):
            part = likeness[row * size : (row + 1) * size, column * size : (column + 1) * size]
            rows, places = linear_sum_assignment(part, maximize=True)
            inner[row, column] = places
            sums[row, column] = part[rows, places].sum()
    chosen = linear_sum_assignment(sums, maximize=True)[1]
    found = [column * size + inner[row, column] for row, column in enumerate(chosen)]
    return torch.from_numpy(np.concatenate(found))


def permute(tensor: Tensor, groups: Sequence[str | None], found: Mapping[str, Tensor]) -> Tensor:
    """Returns a tensor with the units along its dimensions in their new order.

    Args:
        tensor: The tensor.
        groups: The group of units along each dimension.
        found: {group: places (n,)}; dimensions of other groups stay.
    """
    for axis, group in enumerate(groups):
        if group is not None and group in found:
            tensor = tensor.index_select(axis, found[group])
    return tensor


def permute_state(state: State, axes: Axes, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a network with its units in another order; it computes the same."""
    return {
        name: permute(tensor, axes[name], found) if name in axes else tensor
        for name, tensor in state.items()
    }
