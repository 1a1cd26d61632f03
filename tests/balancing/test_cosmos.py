"""COSMOS against its formula, and preferences under other methods."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from src.balancing import (
    COSMOS,
    GradDrop,
    LogSum,
    PCGrad,
    RandomWeights,
    StaticWeights,
    UncertaintyWeights,
)
from tests.balancing.gradient_sets import losses_of, names

pairs = st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1)), min_size=1, max_size=6)


def preferred(values, preference, present=None):
    return replace(losses_of(values, present), preference_T=torch.tensor(preference))


@settings(deadline=None)
@given(pairs, st.floats(0, 5))
def test_value_and_gradient_are_those_of_the_paper(values, mu):
    losses, preference = np.array(values).T
    preference = preference / preference.sum()
    step = preferred(losses, preference)
    total, weights = COSMOS(names(len(losses)), mu)(step)
    total.backward()

    L = torch.tensor(losses, requires_grad=True)
    p = torch.tensor(preference)
    wanted = p @ L - mu * F.cosine_similarity(L, p, dim=0, eps=1e-300)
    wanted.backward()
    scale = float(abs(p @ L.detach()) + mu)
    np.testing.assert_allclose(total.detach(), wanted.detach(), atol=1e-9 * scale)
    bound = 1e-9 * (1 + mu / float(L.detach().norm()))
    np.testing.assert_allclose(step.local_T.grad, L.grad, atol=bound)
    np.testing.assert_allclose(weights, L.grad, atol=bound)


def test_absent_tasks_leave_both_terms():
    some = COSMOS(names(3), 0.7)(preferred([2.0, 0.0, 1.0], [0.5, 0.2, 0.3], [True, False, True]))
    two = COSMOS(names(2), 0.7)(preferred([2.0, 1.0], [0.5, 0.3]))
    np.testing.assert_allclose(some[0].detach(), two[0].detach())
    np.testing.assert_allclose(some[1], [two[1][0], 0, two[1][1]], atol=1e-12)


def test_without_a_preference_it_is_even():
    losses = losses_of([1.0, 3.0])
    ours = COSMOS(names(2))(losses)
    even = COSMOS(names(2))(preferred([1.0, 3.0], [0.5, 0.5]))
    np.testing.assert_array_equal(ours[1], even[1])


@pytest.mark.parametrize("method", [StaticWeights, LogSum, RandomWeights, UncertaintyWeights])
def test_other_methods_weigh_by_the_preference_too(method):
    plain = method(names(3))(losses_of([1.0, 2.0, 4.0]))
    total, weights = method(names(3))(preferred([1.0, 2.0, 4.0], [0.2, 0.3, 0.5]))
    np.testing.assert_allclose(weights, 3 * np.array([0.2, 0.3, 0.5]) * plain[1].numpy())
    values = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(total.detach(), weights.numpy() @ values)
    even = method(names(3))(preferred([1.0, 2.0, 4.0], [1 / 3] * 3))
    np.testing.assert_allclose(even[0].detach(), plain[0].detach())


def test_methods_that_take_gradients_weigh_by_the_preference_too():
    J = torch.tensor(np.random.default_rng(0).normal(size=(3, 7)))
    preference = torch.tensor([0.2, 0.3, 0.5])
    losses = preferred([1.0, 2.0, 4.0], preference.tolist())
    plain = losses_of([1.0, 2.0, 4.0])
    ours, _ = PCGrad(names(3))(losses, J @ J.T)
    np.testing.assert_allclose(ours, 3 * preference * PCGrad(names(3))(plain, J @ J.T)[0])
    direction = GradDrop(names(3), "parameters")(J, losses)
    scaled = GradDrop(names(3), "parameters")(3 * preference[:, None] * J, plain)
    np.testing.assert_allclose(direction, scaled)


def test_a_bad_strength_is_named():
    with pytest.raises(ValueError, match=r"COSMOS: mu -1.0 must be at least 0"):
        COSMOS(names(2), -1.0)
