"""DARE: drops numbers of task vectors by chance, and rescales the others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from src.analysis.merging.weights import State, subtract
from src.rng import make_generator


def sum_dropped(
    states: Sequence[State], start: State, density: float, seed: int
) -> dict[str, Tensor]:
    """Returns the sum of thinned task vectors; the network is theta_0 + scale times it.

    (Yu et al., "Language models are super Mario: absorbing abilities from homologous models as a
    free lunch", ICML 2024.) Of each tau_i = theta_i - theta_0 a number stays with probability 1 - p
    and is divided by 1 - p, so that its expectation is what it was: sum_i m_i tau_i / (1 - p), with
    m_i ~ Bernoulli(1 - p).

    Args:
        states: The networks theta_i.
        start: The network theta_0 that each of them started from.
        density: 1 - p, above 0 and at most 1.
        seed: Seed of the draws.
    """
    total: dict[str, Tensor] = {}
    for number, state in enumerate(states):
        generator = make_generator(seed, number)
        for name, tensor in subtract(state, start).items():
            kept = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) < density
            thinned = tensor.where(kept, 0.0) / density
            total[name] = total[name] + thinned if name in total else thinned
    return total
