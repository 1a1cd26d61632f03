"""Affinities are those of their definition: a step on one task's loss, taken for real."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim import SGD

from src.balancing import PCGrad, StaticWeights
from src.batch import InputShape
from src.models.encoders import ResNet
from src.models.sharing import Groups, HardSharing, Separate
from tests.models.backward.test_levels import TwoFeatures, batch_of, model_of, task_losses

RATE = 0.1


def fitted(model):
    """The model, with an optimizer as a fit would give it."""
    model.trainer.strategy._optimizers = [SGD(model.parameters(), lr=RATE)]
    return model


def plain_losses(model, batch):
    losses = torch.stack(task_losses(model, batch, model.sharing(batch.inputs)))
    return losses / torch.tensor([model.weights[name] for name in model.names])


def affinities_by_hand(model, batch):
    """Copies the model for each task, and moves the copy."""
    shared = list(model.sharing.shared_parameters())
    before = plain_losses(model, batch)
    exact, first = [], []
    rows = []
    for loss in before:
        parts = torch.autograd.grad(loss, shared, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    for i in range(len(rows)):
        other = copy.deepcopy(model)
        with torch.no_grad():
            places = list(other.sharing.shared_parameters())
            sizes = [p.numel() for p in places]
            for p, g in zip(places, rows[i].split(sizes), strict=True):
                p -= RATE * g.view_as(p)
            exact.append(1 - plain_losses(other, batch) / before)
        first.append(RATE * torch.stack([rows[i] @ row for row in rows]) / before)
    return torch.stack(exact).detach(), torch.stack(first).detach()


@pytest.mark.parametrize("sharing", [HardSharing, TwoFeatures, partial(HardSharing, until=1)])
@pytest.mark.parametrize("balancer", [StaticWeights, partial(PCGrad, level="parameters")])
def test_affinities_are_those_of_a_step_on_one_task(sharing, balancer):
    model = fitted(model_of(balancer, sharing))
    batch = batch_of()
    exact, first = model.step.task_affinities(batch)
    exact_by_hand, first_by_hand = affinities_by_hand(model, batch)
    # a batch in which each task has a label
    assert exact.isfinite().all()
    np.testing.assert_allclose(exact, exact_by_hand, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first, first_by_hand, rtol=1e-9, atol=1e-12)
    assert (exact - first).abs().max() > 1e-4


def test_the_first_order_is_the_limit_of_short_steps():
    model = fitted(model_of(StaticWeights))
    batch = batch_of()
    gaps = []
    for rate in (1e-2, 1e-3):
        model.trainer.optimizers[0].param_groups[0]["lr"] = rate
        exact, first = model.step.task_affinities(batch)
        gaps.append(float((exact - first).abs().max()) / rate)
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.2)


def test_tasks_of_different_groups_do_not_touch():
    def in_halves(encoder, tasks):
        return Groups(encoder, tasks, [list(tasks[:4]), list(tasks[4:])])

    model = fitted(model_of(StaticWeights, in_halves))
    group = torch.tensor([model.sharing.tasks.index(name) < 4 for name in model.names])
    same = group[:, None] == group
    for affinities in model.step.task_affinities(batch_of()):
        assert (affinities[~same] == 0).all()
        assert (affinities[same] != 0).all()


def test_tasks_without_labels_or_a_rate_have_no_affinity():
    model = fitted(model_of(StaticWeights))
    batch = batch_of()
    batch.targets["number"] = torch.full_like(batch.targets["number"], torch.nan)
    absent = model.names.index("number")
    for affinities in model.step.task_affinities(batch):
        gone = affinities.isnan()
        assert gone[absent].all()
        assert gone[:, absent].all()
        assert int(gone.sum()) == 2 * len(model.names) - 1

    model.trainer.optimizers[0].param_groups[0]["lr"] = 0.0
    assert all(found.isnan().all() for found in model.step.task_affinities(batch))
    alone = fitted(model_of(StaticWeights, Separate))
    assert all(found.isnan().all() for found in alone.step.task_affinities(batch_of()))


def test_measuring_leaves_the_model_as_it_was():
    """With running statistics, which every forward pass would move."""
    model = model_of(StaticWeights)
    make = partial(ResNet, InputShape((5, 1, 1)), width=2, norm="batch")
    model.sharing = HardSharing(make, list(model.tasks)).double()
    model.heads = type(model.heads)(model.tasks, model.sharing.feature_sizes).double()
    model = fitted(model)
    batch = batch_of()
    batch.inputs = batch.inputs[:, :, None, None]
    before = copy.deepcopy(model.state_dict())
    assert any("running" in name for name in before)
    exact, _ = model.step.task_affinities(batch)
    assert exact.isfinite().all()
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.grad is None for p in model.parameters())
