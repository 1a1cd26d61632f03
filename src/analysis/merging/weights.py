"""Weighted sums of networks: theta = sum_i w_i theta_i, in float64."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from src.errors import UserError

# the tensors of a network, by name
State = Mapping[str, Tensor]
FAR_FROM_ONE = 1e-6  # rounding of weights that are written with six digits


def merge_weighted(states: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """Returns theta = sum_i w_i theta_i, tensor by tensor.

    It is computed as theta_1 + sum_i w_i (theta_i - theta_1), which is the same for weights that
    sum to 1, and leaves networks that are equal as they are, to the bit.

    Args:
        states: The networks, with tensors of the same names and shapes.
        weights: One for each.

    Raises:
        UserError: There is not one weight for each network, or they do not sum to 1.
    """
    check_weights(weights, len(states))
    first, *others = states
    merged = {}
    for name, tensor in first.items():
        if not tensor.is_floating_point():
            # counters and places of a table are no quantities to average
            merged[name] = tensor.clone()
            continue
        total = tensor.double()
        base = total.clone()
        for other, weight in zip(others, weights[1:], strict=True):
            total = total + weight * (other[name].double() - base)
        merged[name] = total.to(tensor.dtype)
    return merged


def check_weights(weights: Sequence[float], count: int) -> None:
    """Checks that there is a weight for each network, and that they sum to 1.

    Raises:
        UserError: It is otherwise.
    """
    shown = ",".join(f"{weight:g}" for weight in weights)
    if len(weights) != count:
        raise UserError(f"--weights {shown}: there must be one for each of the {count} runs")
    total = sum(weights)
    # not <=: NaN is no sum either
    if not abs(total - 1) < FAR_FROM_ONE:
        raise UserError(f"--weights {shown} sum to {total:g}; they must sum to 1")


def subtract(state: State, start: State) -> dict[str, Tensor]:
    """Returns the task vector tau = theta - theta_0 in float64, without what is no number."""
    found = {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            found[name] = tensor.double() - start[name].double()
    return found


def add(start: State, vector: State, scale: float = 1.0) -> dict[str, Tensor]:
    """Returns theta_0 + scale * tau, in the types of theta_0.

    Args:
        start: theta_0.
        vector: tau; where it lacks a tensor, that of the start stays.
        scale: The factor.
    """
    found = {}
    for name, tensor in start.items():
        if name in vector:
            found[name] = (tensor.double() + scale * vector[name].double()).to(tensor.dtype)
        else:
            found[name] = tensor.clone()
    return found


def flatten(vector: State) -> Tensor:
    """Returns all numbers of a task vector in one row, tensor after tensor."""
    return torch.cat([tensor.flatten() for tensor in vector.values()])


def unflatten(row: Tensor, like: State) -> dict[str, Tensor]:
    """Returns a row of numbers as the tensors that :func:`flatten` has put into it."""
    found = {}
    first = 0
    for name, tensor in like.items():
        found[name] = row[first : first + tensor.numel()].view(tensor.shape)
        first += tensor.numel()
    return found
