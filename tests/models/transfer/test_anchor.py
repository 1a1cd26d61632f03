"""Penalties on the distance to the start, against their formulas in float64."""

import pytest
import torch

from src.errors import UserError
from src.models.transfer.ewc import EWC
from src.models.transfer.l2sp import L2SP
from tests.models.test_heads import model_of
from tests.toy import Toy


@pytest.fixture
def moved():
    """A model away from its start, that start, and the names that it holds on to."""
    model = model_of(Toy().tasks).double()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.add_(0.1 * (k + 1))
    names = [name for name in start if not name.startswith("heads.rare")]
    return model, start, names


def test_l2sp(moved):
    model, start, names = moved
    anchor = L2SP(strength=0.3)
    assert anchor.penalty() == 0
    anchor.hold(model, names, start, {})
    anchor.penalty().backward()
    now = dict(model.named_parameters())
    expected = sum(((now[n] - start[n]) ** 2).sum() for n in names) * 0.15
    torch.testing.assert_close(anchor.penalty(), expected)
    for name, p in now.items():
        if name in names:
            torch.testing.assert_close(p.grad, 0.3 * (p - start[name]).detach())
        else:
            assert p.grad is None


def test_ewc(moved):
    model, start, names = moved
    fisher = {name: torch.rand_like(p) for name, p in start.items()}
    anchor = EWC(strength=5.0)
    anchor.hold(model, names, start, fisher)
    anchor.penalty().backward()
    for name, p in model.named_parameters():
        if name in names:
            torch.testing.assert_close(p.grad, 5.0 * fisher[name] * (p - start[name]).detach())


def test_frozen_weights_cost_nothing_until_they_thaw(moved):
    model, start, names = moved
    model.sharing.requires_grad_(False)
    anchor = L2SP(strength=2.0)
    anchor.hold(model, names, start, {})
    now = dict(model.named_parameters())
    squares = {n: ((now[n] - start[n]) ** 2).sum() for n in names}
    heads = sum(square for n, square in squares.items() if n.startswith("heads."))
    torch.testing.assert_close(anchor.penalty(), heads)
    model.sharing.requires_grad_(True)
    torch.testing.assert_close(anchor.penalty(), sum(squares.values()))


@pytest.mark.parametrize("make", [L2SP, EWC])
@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_strengths_that_are_none_are_refused(make, strength):
    with pytest.raises(UserError, match="strength is"):
        make(strength=strength)


def test_ewc_needs_rows():
    with pytest.raises(UserError, match="rows is 0"):
        EWC(rows=0)
