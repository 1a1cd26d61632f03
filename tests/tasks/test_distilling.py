"""A teacher's outputs in the place of labels, against the definitions in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    SequenceLabelling,
)
from src.tasks.distilling import compare_classes, compare_probabilities


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).mul(3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_classes_are_compared_by_the_divergence_of_tempered_distributions(temperature):
    z, v = draw(7, 2, 4), draw(7, 2, 4, seed=1)
    found = compare_classes(z, v, temperature).numpy()
    q = np.exp(v.numpy() / temperature)
    q /= q.sum(-1, keepdims=True)
    p = np.exp(z.numpy() / temperature)
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_allclose(found, temperature**2 * (q * np.log(q / p)).sum(-1), rtol=1e-9)


def test_yes_or_no_is_a_distribution_over_two_classes():
    z, v = draw(9), draw(9, seed=1)
    two = compare_classes(
        torch.stack([torch.zeros_like(z), z], -1), torch.stack([torch.zeros_like(v), v], -1), 2.0
    )
    torch.testing.assert_close(compare_probabilities(z, v, 2.0), two, rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 99), temperature=st.floats(0.3, 10))
def test_a_teacher_that_agrees_costs_nothing_and_any_other_costs(seed, temperature):
    z, v = draw(5, 3, seed=seed), draw(5, 3, seed=seed + 100)
    for compare in (compare_classes, compare_probabilities):
        assert compare(z, z, temperature).abs().max() < 1e-12
        assert (compare(z, v, temperature) >= -1e-12).all()


def test_probabilities_that_are_certain_have_finite_gradients():
    z = torch.tensor([200.0, -200.0], requires_grad=True)
    compare_probabilities(z, torch.tensor([-200.0, -200.0]), 1.0).sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad[1] == 0


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        (Classification(classes=(0, 1, 2)), torch.zeros(6, 2).long()),
        (BinaryClassification(classes=(0, 1)), torch.zeros(6, 2)),
        (MultilabelClassification(labels=("u", "v", "w")), torch.zeros(6, 2, 3)),
        (Regression(mean=(0.0,), std=(1.0,)), torch.zeros(6, 2)),
        (Regression(mean=(0.0, 0.0), std=(1.0, 1.0), names=("u", "v")), torch.zeros(6, 2, 2)),
        (SequenceLabelling(classes=("a", "b"), crf=True), torch.zeros(6, 5, 1).long()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_losses_have_the_shape_of_the_labels(task, targets):
    leading = targets.shape[: targets.ndim - task.event_dims]
    outputs = draw(*leading, task.out_features)
    assert task.distil(outputs, outputs + 1, targets, 2.0).shape == targets.shape


def test_a_number_is_learnt_as_the_teacher_says_it():
    task = Regression(mean=(3.0,), std=(2.0,))
    outputs, taught = draw(8, 1), draw(8, 1, seed=1)
    nothing = torch.full((8,), torch.nan, dtype=torch.float64)
    torch.testing.assert_close(
        task.distil(outputs, taught, nothing, 5.0), task.losses(outputs, taught[:, 0])
    )
