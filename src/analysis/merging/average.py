"""The plain average of networks."""

from collections.abc import Sequence

from torch import Tensor

from src.analysis.merging.weights import State, merge_weighted


def average(states: Sequence[State]) -> dict[str, Tensor]:
    """Returns theta = 1/n sum_i theta_i.

    (Utans, "Weight averaging for neural networks and local resampling schemes", AAAI 1996 workshop;
    Wortsman et al., "Model soups", ICML 2022, call it the uniform soup.)

    Args:
        states: The networks, with tensors of the same names and shapes.
    """
    return merge_weighted(states, [1 / len(states)] * len(states))
