"""RegMean: linear layers that predict what each run's own layer puts out, as nearly as one can."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from src.analysis.merging.average import average
from src.analysis.merging.weights import State


def merge_by_regression(
    states: Sequence[State], grams: Sequence[Mapping[str, Tensor]], alpha: float
) -> dict[str, Tensor]:
    """Returns networks whose linear layers are W = (sum_i G_i)^-1 sum_i G_i W_i.

    (Jin et al., "Dataless knowledge fusion by merging weights of language models", ICLR 2023.) With
    G_i = X_i' X_i of the inputs X_i (N, D) of a layer in run i, W (D, O) minimises
    sum_i |X_i W - X_i W_i|^2. Elements of G_i off its diagonal are multiplied by ``alpha``, so that
    few rows do not decide. All other tensors, biases among them, are averaged.

    Args:
        states: The networks; torch holds a layer's weight as W' (O, D).
        grams: For each run {name of a weight: G_i (D, D)}.
        alpha: Factor on the elements off the diagonal, from 0 to 1.
    """
    merged = average(states)
    for name in grams[0]:
        weight = states[0][name]
        base = weight.double().T
        shrunk = [shrink(gram[name].double(), alpha) for gram in grams]
        right = torch.zeros_like(base)
        for gram, state in zip(shrunk, states, strict=True):
            right += gram @ (state[name].double().T - base)

        # of a singular sum the solution that moves least: directions that no input has stay
        solved = torch.linalg.pinv(torch.stack(shrunk).sum(0), hermitian=True) @ right
        merged[name] = (base + solved).T.to(weight.dtype).contiguous()
    return merged


def shrink(gram_DD: Tensor, alpha: float) -> Tensor:
    """Returns a Gram matrix whose elements off the diagonal are multiplied by alpha."""
    diagonal = gram_DD.diagonal().diag()
    return alpha * gram_DD + (1 - alpha) * diagonal


def compute_gram(inputs: Tensor) -> Tensor:
    """Returns X'X (D, D) of inputs (..., D), in float64."""
    flat = inputs.detach().reshape(-1, inputs.shape[-1]).double()
    return flat.T @ flat
