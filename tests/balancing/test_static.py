import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.balancing import LossBalancer, StaticWeights, TaskLosses


def losses_of(local):
    return TaskLosses(local, local.detach(), torch.ones(len(local), dtype=torch.bool))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100)), min_size=1, max_size=8))
def test_weighted_sum_and_its_gradient(pairs):
    weights, values = zip(*pairs, strict=True)
    local = torch.tensor(values, requires_grad=True)
    balancer = StaticWeights({f"t{i}": w for i, w in enumerate(weights)})
    total = balancer(losses_of(local))
    total.backward()
    assert total.item() == pytest.approx(float(np.dot(weights, values)), rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(local.grad, weights, rtol=1e-6, atol=1e-30)


def test_weights_are_of_the_config_not_of_the_checkpoint():
    balancer = StaticWeights({"a": 1.0, "b": 0.5})
    assert balancer.tasks == ("a", "b")
    assert balancer.weights_T.tolist() == [1, 0.5]
    assert balancer.state_dict() == {}
    assert list(balancer.parameters()) == []


class ByTheirSize(LossBalancer):
    """Weights 1 / L."""

    def weigh(self, losses):
        return 1 / losses.global_T


def test_loss_balancer_takes_weights_from_the_global_losses_and_gradients_from_the_local_ones():
    local = torch.tensor([2.0, 6.0], requires_grad=True)
    losses = TaskLosses(local, torch.tensor([4.0, 3.0]), torch.tensor([True, True]))
    total = ByTheirSize({"a": 1.0, "b": 1.0})(losses)
    total.backward()
    assert total.item() == 2.5
    np.testing.assert_allclose(local.grad, [0.25, 1 / 3])
