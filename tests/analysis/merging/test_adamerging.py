"""AdaMerging: entropies against their definition, and coefficients that lower them."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from src.analysis.merging.adamerging import (
    START,
    compute_entropy,
    has_entropy,
    learn_coefficients,
    merge_by_coefficients,
)
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression
from tests.analysis.merging.networks import SHAPES, make_states

CLASSES = Classification(classes=("a", "b", "c"))
YES = BinaryClassification(classes=("no", "yes"))
LABELS = MultilabelClassification(labels=("x", "y"))


def test_entropy_is_its_definition() -> None:
    outputs = 3 * torch.randn(7, 3, dtype=torch.float64)
    p = np.exp(outputs.numpy())
    p /= p.sum(1, keepdims=True)
    wanted = -(p * np.log(p)).sum(1).mean()
    assert compute_entropy(CLASSES, outputs).item() == pytest.approx(wanted)

    for task, width in ((YES, 1), (LABELS, 2)):
        outputs = 3 * torch.randn(7, width, dtype=torch.float64)
        q = 1 / (1 + np.exp(-outputs.numpy()))
        wanted = -(q * np.log(q) + (1 - q) * np.log(1 - q)).mean()
        assert compute_entropy(task, outputs).item() == pytest.approx(wanted)


@pytest.mark.parametrize(("task", "width"), [(CLASSES, 3), (YES, 1), (LABELS, 2)])
def test_the_gradient_of_an_entropy_is_that_of_its_definition(task, width) -> None:
    outputs = torch.randn(5, width, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: compute_entropy(task, x), (outputs,))


def test_only_classes_and_labels_have_an_entropy() -> None:
    assert all(map(has_entropy, (CLASSES, YES, LABELS)))
    assert not has_entropy(Regression(mean=(0.0,), std=(1.0,)))


def test_without_a_step_it_is_task_arithmetic() -> None:
    start, *states = make_states(0, 3)
    learnt = learn_coefficients(states, start, lambda tensors, step: torch.zeros(()), 0, 0.1)
    assert learnt.entropies == []
    merged = merge_by_coefficients(states, start, learnt)
    for name in SHAPES:
        wanted = start[name] + START * sum(state[name] - start[name] for state in states)
        torch.testing.assert_close(merged[name], wanted, rtol=1e-6, atol=1e-6)


def test_each_coefficient_goes_where_the_entropy_falls_and_stays_in_bounds() -> None:
    """A run moves each tensor by one direction; the distance to a goal stands for the entropy."""
    start = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    states = [{name: torch.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2)]
    for number, state in enumerate(states):
        for tensor in state.values():
            tensor.view(-1)[number] = 1.0
    goals = {"layer.weight": (0.6, 0.1), "layer.bias": (1.7, -0.8), "norm.weight": (0.3, 0.9)}

    def distance(tensors: Mapping[str, Tensor], step: int) -> Tensor:
        terms = [
            (tensors[name].view(-1)[:2] - torch.tensor(goal)).square().sum()
            for name, goal in goals.items()
        ]
        return torch.stack(terms).sum()

    learnt = learn_coefficients(states, start, distance, steps=400, rate=0.02)
    assert learnt.names == tuple(SHAPES)
    wanted = torch.tensor([[0.6, 1.0, 0.3], [0.1, 0.0, 0.9]])
    torch.testing.assert_close(learnt.values, wanted, atol=0.01, rtol=0)
    assert learnt.entropies[-1] < learnt.entropies[0]
    merged = merge_by_coefficients(states, start, learnt)
    assert merged["layer.weight"].view(-1)[:2].tolist() == pytest.approx([0.6, 0.1], abs=0.01)
