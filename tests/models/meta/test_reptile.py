"""Reptile's pseudo-gradient against its definition, in float64."""

from types import SimpleNamespace

import pytest
import torch

from src.models.meta import Reptile
from tests.models.meta.toy import (
    REGRESSION,
    episodes_of,
    make_batch,
    make_model,
    predict,
    squared_error,
    weights_of,
)

RATE = 0.1
STEPS = 3


@pytest.mark.parametrize("batched", [True, False])
def test_it_is_the_mean_way_of_all_episodes(batched):
    model = make_model(REGRESSION, Reptile, inner_lr=RATE, inner_steps=STEPS, batched=batched)
    model.trainer = SimpleNamespace(global_step=0)
    batch = make_batch(REGRESSION)
    scheduled = model.meta.take_gradients(model, batch)

    start = weights_of(model)
    ways = [torch.zeros_like(weight) for weight in start]
    losses = []
    for x, y, query, labels in episodes_of(batch)[:2]:  # the third one has no label
        own = start
        rows = torch.cat([x, query]), torch.cat([y, labels])
        for _ in range(STEPS):
            gradients = torch.autograd.grad(squared_error(own, *rows), own)
            own = [
                (w - RATE * g).detach().requires_grad_()
                for w, g in zip(own, gradients, strict=True)
            ]
        for way, before, after in zip(ways, start, own, strict=True):
            way += (before - after).detach() / 2
        known = ~labels.isnan()
        losses += ((predict(own, query)[:, 0] - labels)[known] ** 2).tolist()

    named = dict(zip(map(id, scheduled.parameters), scheduled.gradients, strict=True))
    linear = model.sharing.encoder.stages[0][0]
    head = model.heads["y"].linears[0]
    trained = (linear.weight, linear.bias, head.weight, head.bias)
    for parameter, way in zip(trained, ways, strict=True):
        torch.testing.assert_close(named[id(parameter)], way)
    assert float(scheduled.value) == pytest.approx(sum(losses) / len(losses))
    assert scheduled.totals_2T[1].tolist() == [len(losses)]


def test_evaluation_learns_from_support_rows_alone():
    model = make_model(REGRESSION, Reptile, inner_lr=RATE, inner_steps=1).eval()
    batch = make_batch(REGRESSION)
    before = model.run(batch)[0]
    batch.targets["y"] += 100
    torch.testing.assert_close(model.run(batch)[0], before)
    batch.extras["label"] += 1
    assert (model.run(batch)[0] - before).abs().max() > 1e-3
