"""Fisher merging: an average that weighs each number by how much its own run depends on it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from src.analysis.merging.weights import State, check_weights


def merge_by_fisher(
    states: Sequence[State], fishers: Sequence[State], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Returns theta = (sum_i w_i F_i theta_i) / (sum_i w_i F_i), number by number.

    (Matena and Raffel, "Merging models with Fisher-weighted averaging", NeurIPS 2022.) It is the
    mode of the product of Gaussians N(theta_i, 1 / F_i) to the powers w_i. Where no run depends on
    a number (all F_i are 0), and where a tensor has no Fisher information, it is the average by the
    weights.

    Args:
        states: The networks theta_i.
        fishers: The diagonal F_i of the Fisher information of each, at least 0; tensors may lack.
        weights: w_i, which sum to 1.

    Raises:
        UserError: The weights are not one for each network, or do not sum to 1.
    """
    check_weights(weights, len(states))
    merged = {}
    for name, tensor in states[0].items():
        if not tensor.is_floating_point():
            merged[name] = tensor.clone()
            continue
        base = tensor.double()
        plain = [base.new_full(base.shape, weight) for weight in weights]
        factors = plain
        if all(name in fisher for fisher in fishers):
            pairs = zip(weights, fishers, strict=True)
            factors = [weight * fisher[name].double() for weight, fisher in pairs]
        total = torch.stack(factors).sum(0)
        known = total > 0

        # differences from the first network: equal ones stay as they are, to the bit
        moved = torch.zeros_like(base)
        for state, factor, own in zip(states, factors, plain, strict=True):
            share = torch.where(known, factor / total.where(known, 1.0), own)
            moved += share * (state[name].double() - base)
        merged[name] = (base + moved).to(tensor.dtype)
    return merged
