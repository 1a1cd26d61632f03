"""Fisher merging against its formula."""

import numpy as np
import torch
from hypothesis import given

from src.analysis.merging.average import average
from src.analysis.merging.fisher import merge_by_fisher
from tests.analysis.merging.networks import SHAPES, counts, make_states, seeds, to_arrays


def make_fishers(seed: int, count: int) -> list[dict[str, torch.Tensor]]:
    return [
        {name: tensor**2 for name, tensor in state.items()}
        for state in make_states(seed + 1, count)
    ]


@given(seeds, counts)
def test_it_is_the_formula(seed: int, count: int) -> None:
    states = make_states(seed, count)
    fishers = make_fishers(seed, count)
    weights = list(np.random.default_rng(seed).dirichlet(np.ones(count)))
    merged = merge_by_fisher(states, fishers, weights)
    for name in SHAPES:
        theta = to_arrays(states, name)
        factors = to_arrays(fishers, name) * np.reshape(weights, (-1, *[1] * (theta.ndim - 1)))
        wanted = (factors * theta).sum(0) / factors.sum(0)
        np.testing.assert_allclose(merged[name].numpy(), wanted, rtol=1e-7, atol=1e-9)


@given(seeds, counts)
def test_equal_networks_stay_as_they_are_to_the_bit(seed: int, count: int) -> None:
    state = make_states(seed, 1, torch.float32)[0]
    merged = merge_by_fisher([state] * count, make_fishers(seed, count), [1 / count] * count)
    assert all(merged[name].equal(state[name]) for name in SHAPES)


def test_a_run_that_depends_on_nothing_does_not_count_and_without_any_it_is_the_average() -> None:
    one, two = make_states(0, 2)
    zero = {name: torch.zeros_like(tensor) for name, tensor in one.items()}
    some = {name: torch.ones_like(tensor) for name, tensor in one.items()}
    alone = merge_by_fisher([one, two], [zero, some], [0.5, 0.5])
    neither = merge_by_fisher([one, two], [zero, zero], [0.5, 0.5])
    unknown = merge_by_fisher([one, two], [{}, {}], [0.5, 0.5])
    mean = average([one, two])
    for name in SHAPES:
        torch.testing.assert_close(alone[name], two[name])
        torch.testing.assert_close(neither[name], mean[name])
        torch.testing.assert_close(unknown[name], mean[name])
