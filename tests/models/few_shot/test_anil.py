"""ANIL's inner loop against gradient descent written out, and its rate."""

import copy
import itertools

import numpy as np
import pytest
import torch

from src.models.few_shot.anil import InnerLoop, adapt_head, find_rate
from src.models.few_shot.examples import Examples, mean_loss
from src.tasks import BinaryClassification, Regression

Z = torch.from_numpy(np.random.default_rng(0).normal(2, 3, (20, 4)))
NUMBER = Regression(mean=(0.0,), std=(1.0,))


def test_two_steps_from_zeros() -> None:
    y = Z[:, 0] - 1
    head = NUMBER.head(4).double()
    adapt_head(NUMBER, head, Examples(Z, y), InnerLoop(steps=2, rate=0.01))
    w = torch.zeros(4).double()
    b = torch.zeros(()).double()
    for _ in range(2):
        error = Z @ w + b - y
        w, b = w - 0.01 * 2 * Z.T @ error / 20, b - 0.01 * 2 * error.mean()
    torch.testing.assert_close(head.linears[0].weight[0].detach(), w)
    torch.testing.assert_close(head.linears[0].bias[0].detach(), b)


def test_a_meta_learnt_head_is_the_start() -> None:
    y = Z[:, 0] - 1
    learnt = NUMBER.head(4).double()
    head = NUMBER.head(4).double()
    loop = InnerLoop(head=learnt.state_dict(), steps=1, rate=0.003)
    assert adapt_head(NUMBER, head, Examples(Z, y), loop) == 0.003
    expected = copy.deepcopy(learnt)
    loss = mean_loss(NUMBER, expected(Z), Examples(Z, y))
    for p, g in zip(
        expected.parameters(), torch.autograd.grad(loss, list(expected.parameters())), strict=True
    ):
        p.data -= 0.003 * g
    torch.testing.assert_close(head.state_dict(), expected.state_dict())


def test_a_head_learns_within_no_grad() -> None:
    head = NUMBER.head(4).double()
    with torch.no_grad():
        adapt_head(NUMBER, head, Examples(Z, Z[:, 0]), InnerLoop())
    assert head.linears[0].weight.abs().sum() > 0
    assert head.linears[0].weight.requires_grad


@pytest.mark.parametrize("kind", ["number", "class"])
def test_steps_at_the_usual_rate_never_raise_the_loss(kind: str) -> None:
    task = NUMBER if kind == "number" else BinaryClassification(classes=(0, 1))
    y = Z[:, 0] - Z[:, 1] if kind == "number" else (Z[:, 0] > Z[:, 1]).double()
    examples = Examples(Z, y)
    losses = []
    for steps in range(15):
        head = task.head(4).double()
        adapt_head(task, head, examples, InnerLoop(steps=steps))
        losses.append(mean_loss(task, head(Z), examples).item())
    assert all(after < before for before, after in itertools.pairwise(losses))


def test_the_rate_follows_from_second_moments() -> None:
    ones = torch.cat([Z, torch.ones(20, 1).double()], 1)
    largest = np.linalg.eigvalsh((ones.T @ ones / 20).numpy()).max()
    assert find_rate(Examples(Z, Z[:, 0])) == pytest.approx(1 / (2 * largest))
