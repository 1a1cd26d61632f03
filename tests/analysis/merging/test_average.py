"""The plain average of networks."""

import numpy as np
import torch
from hypothesis import given

from src.analysis.merging.average import average
from tests.analysis.merging.networks import SHAPES, counts, make_states, seeds, to_arrays


@given(seeds, counts)
def test_it_is_the_mean(seed: int, count: int) -> None:
    states = make_states(seed, count)
    merged = average(states)
    for name in SHAPES:
        np.testing.assert_allclose(merged[name].numpy(), to_arrays(states, name).mean(0), rtol=1e-9)


@given(seeds, counts)
def test_equal_networks_stay_as_they_are_to_the_bit(seed: int, count: int) -> None:
    state = make_states(seed, 1, torch.float32)[0]
    merged = average([state] * count)
    assert all(merged[name].equal(state[name]) for name in SHAPES)
