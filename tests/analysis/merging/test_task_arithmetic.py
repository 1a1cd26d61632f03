"""Task arithmetic, and the choice of its factor."""

from math import nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.analysis.merging.average import average
from src.analysis.merging.task_arithmetic import GRID, add_tasks, choose_scale
from tests.analysis.merging.networks import SHAPES, counts, make_states, seeds, to_arrays


@given(seeds, counts, st.floats(0, 1))
def test_it_is_the_start_and_a_multiple_of_the_sum(seed: int, count: int, scale: float) -> None:
    start, *states = make_states(seed, count + 1)
    merged = add_tasks(states, start, scale)
    for name in SHAPES:
        zero = start[name].numpy()
        wanted = zero + scale * (to_arrays(states, name) - zero).sum(0)
        np.testing.assert_allclose(merged[name].numpy(), wanted, rtol=1e-9, atol=1e-12)


@given(seeds, counts)
def test_with_one_over_n_it_is_the_average(seed: int, count: int) -> None:
    start, *states = make_states(seed, count + 1)
    merged = add_tasks(states, start, 1 / count)
    mean = average(states)
    for name in SHAPES:
        torch.testing.assert_close(merged[name], mean[name], rtol=1e-9, atol=1e-12)


def test_the_best_factor_on_validation_rows_is_chosen() -> None:
    assert choose_scale(lambda scale: -((scale - 0.3) ** 2)) == (pytest.approx(0.3), 0.0)
    # the smallest of several, and no score is the lowest
    assert choose_scale(lambda scale: nan if scale < 0.5 else 1.0) == (0.5, 1.0)
    assert choose_scale(lambda scale: nan)[0] == GRID[0]
