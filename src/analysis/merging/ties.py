"""TIES: trims task vectors, elects a sign for each number, and averages the runs that agree."""

from collections.abc import Sequence

import torch
from torch import Tensor

from src.analysis.merging.weights import State, flatten, subtract, unflatten


def merge_vectors(states: Sequence[State], start: State, density: float) -> dict[str, Tensor]:
    """Returns the merged task vector; the network is theta_0 + scale times it.

    (Yadav et al., "TIES-merging: resolving interference when merging models", NeurIPS 2023.)

    - Trim: of each tau_i = theta_i - theta_0 the share ``density`` of the numbers that are largest
      in absolute value stay, over all tensors together; the others become 0.
    - Elect: the sign of each number is sgn(sum_i tau_i); where that is 0, the sign that most
      numbers have.
    - Disjoint merge: the mean over the runs whose number has the elected sign, 0 where none has.

    Args:
        states: The networks theta_i.
        start: The network theta_0 that each of them started from.
        density: Share of the numbers that stay, above 0 and at most 1.
    """
    vectors = [subtract(state, start) for state in states]
    rows_NP = torch.stack([trim(flatten(vector), density) for vector in vectors])
    signs_P = elect_signs(rows_NP)
    return unflatten(average_agreeing(rows_NP, signs_P), vectors[0])


def trim(row_P: Tensor, density: float) -> Tensor:
    """Returns the numbers (P,), all but the largest in absolute value set to 0.

    Args:
        row_P: The numbers.
        density: Share that stays; at least one number does.
    """
    dropped = min(len(row_P) - round(density * len(row_P)), len(row_P) - 1)
    if dropped == 0:
        return row_P
    # numbers that are as large as the smallest one kept stay as well
    limit = row_P.abs().kthvalue(dropped + 1).values
    return row_P.where(row_P.abs() >= limit, 0.0)


def elect_signs(rows_NP: Tensor) -> Tensor:
    """Returns the elected signs (P,), each -1, 0 or 1."""
    signs_P = rows_NP.sum(0).sign()
    majority = signs_P.sum().sign()
    return signs_P.where(signs_P != 0, majority)


def average_agreeing(rows_NP: Tensor, signs_P: Tensor) -> Tensor:
    """Returns the mean (P,) of the numbers that have the elected sign, 0 where none has."""
    agrees_NP = (rows_NP.sign() == signs_P) & (rows_NP != 0)
    total_P = rows_NP.where(agrees_NP, 0.0).sum(0)
    return total_P / agrees_NP.sum(0).clamp(min=1)
