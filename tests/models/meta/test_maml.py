"""MAML against autograd by hand, in float64."""

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.models.meta import ANIL, MAML
from tests.models.meta.toy import (
    CLASSES,
    REGRESSION,
    Tanh,
    episodes_of,
    gradients_of,
    make_batch,
    make_model,
    outer_loss,
    predict,
    squared_error,
    weights_of,
)

RATE = 0.3


def loss_by_hand(weights, batch, steps, first_order, rates=(RATE,) * 4):
    """The mean of the query losses after the inner loop, written out."""
    total = 0.0
    count = 0
    for x, y, query, labels in episodes_of(batch):
        own = list(weights)
        for _ in range(steps):
            gradients = torch.autograd.grad(squared_error(own, x, y), own, create_graph=True)
            if first_order:
                gradients = [gradient.detach() for gradient in gradients]
            moved = zip(own, gradients, rates, strict=True)
            own = [weight - rate * gradient for weight, gradient, rate in moved]
        known = ~labels.isnan()
        total = total + ((predict(own, query)[:, 0] - labels)[known] ** 2).sum()
        count += int(known.sum())
    return total / count


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("batched", [True, False])
def test_its_gradient_is_that_by_hand(steps, first_order, batched):
    model = make_model(
        REGRESSION,
        MAML,
        inner_lr=RATE,
        inner_steps=steps,
        first_order=first_order,
        batched=batched,
    )
    batch = make_batch(REGRESSION)
    loss = outer_loss(model, batch)
    loss.backward()

    weights = weights_of(model)
    expected = loss_by_hand(weights, batch, steps, first_order)
    torch.testing.assert_close(loss, expected)
    wanted = torch.autograd.grad(expected, weights)
    for ours, theirs in zip(gradients_of(model), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_second_derivatives_count():
    batch = make_batch(REGRESSION)
    found = []
    for first_order in (False, True):
        model = make_model(REGRESSION, MAML, inner_lr=RATE, first_order=first_order)
        outer_loss(model, batch).backward()
        found.append(gradients_of(model)[0])
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_rates_are_learnt():
    model = make_model(REGRESSION, MAML, inner_lr=RATE, inner_steps=2, learn_rates=True)
    assert model.meta.rates.shape == (4,)
    groups = {group["name"]: group for group in model.parameter_groups(0.1)}
    assert groups["inner_rates"]["params"] == [model.meta.rates]
    assert groups["inner_rates"]["weight_decay"] == 0

    batch = make_batch(REGRESSION)
    outer_loss(model, batch).backward()
    rates = [torch.tensor(RATE, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    expected = loss_by_hand(weights_of(model), batch, 2, False, rates)
    wanted = torch.stack(torch.autograd.grad(expected, rates))
    torch.testing.assert_close(model.meta.rates.grad, wanted)
    assert "meta.rates" in model.state_dict()


def test_evaluation_reports_the_path_and_trains_nothing():
    model = make_model(REGRESSION, MAML, inner_lr=RATE, test_steps=4, report_steps=[0, 2]).eval()
    batch = make_batch(REGRESSION)
    model.meta.begin_scores()
    with torch.inference_mode():
        outputs = model.run(batch)[0][:, 0, 0]
    found = model.meta.finish_scores("test")

    weights = weights_of(model)
    for steps in (0, 2, 4):
        losses = []
        for x, y, query, labels in episodes_of(batch)[:2]:
            own = weights
            for _ in range(steps):
                gradients = torch.autograd.grad(squared_error(own, x, y), own, create_graph=True)
                own = [w - RATE * g for w, g in zip(own, gradients, strict=True)]
            losses.append(float(squared_error(own, query, labels).detach()))
            if steps == 4 and len(losses) == 1:
                mine = outputs[4:9]
                torch.testing.assert_close(mine, predict(own, query)[:, 0].detach())
        name = "loss" if steps == 4 else f"after_{steps}/loss"
        assert found[f"test/y/episodes/{name}"] == pytest.approx(sum(losses) / 2)
        spread = 1.96 * abs(losses[0] - losses[1]) / 2
        assert found[f"test/y/episodes/{name}_ci95"] == pytest.approx(spread)
    assert all(p.grad is None for p in model.parameters())
    assert "after 2 inner steps" in model.meta.summary()[0]


def test_classes():
    model = make_model(CLASSES, MAML, inner_lr=RATE, inner_steps=2)
    batch = make_batch(CLASSES)
    outer_loss(model, batch).backward()
    weights = weights_of(model)
    total = 0.0
    count = 0
    entropy = torch.nn.functional.cross_entropy
    for x, y, query, labels in episodes_of(batch):
        own = list(weights)
        for _ in range(2):
            loss = entropy(predict(own, x), y, reduction="sum") / max(1, int((y >= 0).sum()))
            gradients = torch.autograd.grad(loss, own, create_graph=True)
            own = [w - RATE * g for w, g in zip(own, gradients, strict=True)]
        total = total + entropy(predict(own, query), labels, reduction="sum")
        count += int((labels >= 0).sum())
    wanted = torch.autograd.grad(total / count, weights)
    for ours, theirs in zip(gradients_of(model), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


class Branches(Tanh):
    """Looks at its inputs, which no batch of episodes can do."""

    def __init__(self, shape):
        super().__init__(shape)
        self.stages.append(Branch())


class Branch(nn.Module):
    def forward(self, x):
        return x if float(x.detach().sum()) > 1e9 else 2 * x


def test_an_encoder_that_cannot_be_batched():
    batch = make_batch(REGRESSION)
    model = make_model(REGRESSION, MAML, encoder=Branches).float()
    with pytest.raises(UserError, match="cannot run Branches on several episodes at once") as error:
        model.check(1)
    assert str(error.value).endswith("set --model.meta.batched false")
    make_model(REGRESSION, ANIL, encoder=Branches).float().check(1)

    alone = make_model(REGRESSION, MAML, encoder=Branches, batched=False)
    alone.check(1)
    outer_loss(alone, batch).backward()
    assert all(p.grad.abs().sum() > 0 for p in alone.parameters())


def test_settings_out_of_range():
    for key, value in (("inner_lr", 0.0), ("inner_steps", -1), ("test_steps", -2)):
        with pytest.raises(UserError, match=rf"model\.meta\.{key} is {value}"):
            MAML(REGRESSION, **{key: value})
    with pytest.raises(UserError, match="learn_rates needs inner steps"):
        MAML(REGRESSION, inner_steps=0, learn_rates=True)
