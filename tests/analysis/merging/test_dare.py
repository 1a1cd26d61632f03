"""DARE: what is dropped, and that its expectation is what it was."""

import numpy as np
import torch
from hypothesis import given

from src.analysis.merging.dare import sum_dropped
from tests.analysis.merging.networks import SHAPES, counts, flat, make_states, seeds


@given(seeds, counts)
def test_with_density_one_it_is_the_sum(seed: int, count: int) -> None:
    start, *states = make_states(seed, count + 1)
    found = sum_dropped(states, start, 1.0, seed=0)
    wanted = sum(flat(state) - flat(start) for state in states)
    np.testing.assert_allclose(flat(found), wanted, rtol=1e-9, atol=1e-12)


@given(seeds)
def test_a_number_is_dropped_or_rescaled(seed: int) -> None:
    start, state = make_states(seed, 2)
    found = flat(sum_dropped([state], start, 0.25, seed))
    whole = (flat(state) - flat(start)) / 0.25
    assert all(x == 0 or np.isclose(x, y) for x, y in zip(found, whole, strict=True))


def test_the_expectation_is_the_sum() -> None:
    start, one, two = make_states(1, 3)
    wanted = flat(one) + flat(two) - 2 * flat(start)
    draws = np.stack([flat(sum_dropped([one, two], start, 0.5, seed)) for seed in range(2000)])
    errors = draws.std(0) / np.sqrt(len(draws))
    # 20 numbers, each within five standard errors
    assert (np.abs(draws.mean(0) - wanted) < 5 * errors).all()
    kept = np.stack([flat(sum_dropped([one], start, 0.5, seed)) != 0 for seed in range(500)])
    assert abs(kept.mean() - 0.5) < 0.02


def test_draws_are_a_function_of_the_seed_and_differ_between_runs() -> None:
    start, one = make_states(2, 2, torch.float32)
    alone = sum_dropped([one], start, 0.5, 7)
    again = sum_dropped([one], start, 0.5, 7)
    twice = sum_dropped([one, one], start, 0.5, 7)
    assert all(alone[name].equal(again[name]) for name in SHAPES)
    assert not np.allclose(flat(twice), 2 * flat(alone))
    assert not np.allclose(flat(sum_dropped([one], start, 0.5, 8)), flat(alone))
