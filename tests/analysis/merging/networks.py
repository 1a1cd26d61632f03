"""Small networks for the tests of merging, as states, and properties to draw them."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

SHAPES = {"layer.weight": (3, 4), "layer.bias": (3,), "norm.weight": (5,)}
Arrays = dict[str, np.ndarray]

seeds = st.integers(0, 2**31)
counts = st.integers(2, 5)


def make_states(
    seed: int, count: int, dtype: torch.dtype = torch.float64
) -> list[dict[str, Tensor]]:
    """Returns networks of normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            for name, shape in SHAPES.items()
        }
        for _ in range(count)
    ]


def to_arrays(states: list[dict[str, Tensor]], name: str) -> np.ndarray:
    """Returns one tensor of all networks, (N, ...)."""
    return np.stack([state[name].double().numpy() for state in states])


def flat(state: dict[str, Tensor]) -> np.ndarray:
    """Returns all numbers of a network in one row."""
    return np.concatenate([tensor.double().numpy().ravel() for tensor in state.values()])
