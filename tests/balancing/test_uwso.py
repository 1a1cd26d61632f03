"""UW-SO against its formula."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.balancing import UWSO
from tests.balancing.gradient_sets import losses_of, names


@settings(deadline=None)
@given(st.lists(st.floats(1e-2, 1e3), min_size=1, max_size=8), st.floats(0.1, 50))
def test_weights_are_the_softmax_of_the_inverse_losses(losses, temperature):
    weights = UWSO(names(len(losses)), temperature)(losses_of(losses))[1].numpy()
    powers = np.exp(1 / np.array(losses) / temperature - (1 / np.array(losses) / temperature).max())
    np.testing.assert_allclose(weights, powers / powers.sum(), rtol=1e-9, atol=1e-300)


def test_absent_tasks_and_losses_of_0_or_below_leave_the_softmax():
    losses = losses_of([1.0, 0.0, 2.0, 0.0, -1.0], [True, False, True, True, True])
    weights = UWSO(names(5), 0.5)(losses)[1].numpy()
    wanted = np.exp([2.0, 1.0])
    np.testing.assert_allclose(weights[[0, 2]], wanted / wanted.sum())
    assert (weights[[1, 3, 4]] == 0).all()


def test_a_large_temperature_makes_weights_equal():
    np.testing.assert_allclose(UWSO(names(3), 1e9)(losses_of([0.1, 1.0, 5.0]))[1], 1 / 3)


def test_a_bad_temperature_is_named():
    with pytest.raises(ValueError, match=r"UWSO: temperature 0.0 must be above 0"):
        UWSO(names(2), 0.0)
