"""Weighted sums of networks, and task vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.analysis.merging.weights import add, flatten, merge_weighted, subtract, unflatten
from src.errors import UserError
from tests.analysis.merging.networks import SHAPES, counts, make_states, seeds, to_arrays


def draw_weights(seed: int, count: int) -> list[float]:
    weights = np.random.default_rng(seed).normal(size=count)
    return [*weights[1:], 1 - weights[1:].sum()]


@given(seeds, counts)
def test_a_merged_network_is_the_weighted_sum(seed: int, count: int) -> None:
    states = make_states(seed, count)
    weights = draw_weights(seed, count)
    merged = merge_weighted(states, weights)
    for name in SHAPES:
        wanted = np.einsum("n,n...->...", weights, to_arrays(states, name))
        np.testing.assert_allclose(merged[name].numpy(), wanted, rtol=1e-10, atol=1e-12)


@given(seeds, counts, st.randoms(use_true_random=False))
def test_the_order_of_runs_does_not_count(seed, count, random) -> None:
    states = make_states(seed, count)
    weights = draw_weights(seed, count)
    order = list(range(count))
    random.shuffle(order)
    merged = merge_weighted(states, weights)
    other = merge_weighted([states[k] for k in order], [weights[k] for k in order])
    for name in SHAPES:
        torch.testing.assert_close(merged[name], other[name], rtol=1e-10, atol=1e-12)


@given(seeds, counts)
def test_equal_networks_stay_as_they_are_to_the_bit(seed: int, count: int) -> None:
    state = make_states(seed, 1, torch.float32)[0]
    merged = merge_weighted([state] * count, draw_weights(seed, count))
    assert all(merged[name].equal(state[name]) for name in SHAPES)


def test_integers_are_those_of_the_first() -> None:
    states = [{"count": torch.tensor(k), "x": torch.tensor(float(k))} for k in (3, 5)]
    merged = merge_weighted(states, [0.5, 0.5])
    assert (merged["count"].item(), merged["x"].item()) == (3, 4.0)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([0.5, 0.3], "sum to 0.8; they must sum to 1"),
        ([1.0], "one for each of the 2 runs"),
        ([float("nan"), 1.0], "sum to nan"),
    ],
)
def test_weights_that_are_none_are_refused(weights: list[float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        merge_weighted(make_states(0, 2), weights)


@given(seeds, st.floats(-2, 2))
def test_a_task_vector_leads_from_the_start_to_the_network(seed: int, scale: float) -> None:
    state, start = make_states(seed, 2, torch.float32)
    vector = subtract(state, start)
    back = add(start, vector)
    part = add(start, vector, scale)
    for name in SHAPES:
        # a difference of two numbers in single precision is exact in double precision
        assert back[name].equal(state[name])
        wanted = (1 - scale) * start[name].double() + scale * state[name].double()
        torch.testing.assert_close(part[name].double(), wanted, rtol=1e-6, atol=1e-6)
    again = unflatten(flatten(vector), vector)
    assert all(again[name].equal(vector[name]) for name in SHAPES)
