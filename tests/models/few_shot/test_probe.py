"""The linear probe against scikit-learn in float64, and its choice of the penalty."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from src.models.few_shot.examples import Examples, mean_loss
from src.models.few_shot.probe import (
    PENALTIES,
    USUAL,
    can_probe,
    choose_penalty,
    deal_folds,
    fit_probe,
    minimise,
)
from src.tasks import (
    BinaryClassification,
    CensoredRegression,
    Classification,
    Counts,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
    Segmentation,
    SequenceLabelling,
    Survival,
    Task,
)

NAN = float("nan")


def make_features(rows: int, size: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, size)) @ rng.normal(size=(size, size))
    return torch.from_numpy(mixed * 3 + 5)


def spread_of(features: Tensor) -> float:
    return float((features - features.mean(0)).pow(2).mean().sqrt())


@pytest.mark.parametrize(("rows", "size"), [(40, 6), (12, 30)])  # both forms of the solution
@pytest.mark.parametrize("penalty", [1e-4, 0.3, 100.0])
def test_numbers_are_ridge_regression(rows: int, size: int, penalty: float) -> None:
    task = Regression(mean=(0.0,), std=(1.0,))
    Z = make_features(rows, size)
    y = Z @ torch.linspace(-1, 1, size).double() + torch.sin(torch.arange(rows).double())
    found = minimise(task, task.head(size), Examples(Z, y), penalty)
    alpha = rows * penalty / 2 * spread_of(Z) ** 2
    theirs = Ridge(alpha=alpha, solver="svd").fit(Z.numpy(), y.numpy())
    np.testing.assert_allclose(found.linears[0].weight[0], theirs.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.linears[0].bias[0], theirs.intercept_, rtol=1e-7)


def test_each_output_leaves_out_its_missing_labels() -> None:
    task = Regression(mean=(0.0, 0.0), std=(1.0, 1.0), names=("u", "v"))
    Z = make_features(30, 4)
    y = torch.stack([Z[:, 0], Z[:, 1] - Z[:, 2]], 1) + 0.1
    y[::3, 0] = NAN
    y[5:9, 1] = NAN
    found = minimise(task, task.head(4), Examples(Z, y), 0.5)
    count = int((~y.isnan()).sum())
    for output in range(2):
        known = ~y[:, output].isnan()
        ours = Ridge(alpha=count * 0.25 * spread_of(Z) ** 2, solver="svd")
        ours.fit(Z[known].numpy(), y[known, output].numpy())
        weight = found.linears[0].weight[output]
        np.testing.assert_allclose(weight, ours.coef_, rtol=1e-8, atol=1e-10)


def test_rows_weigh_as_often_as_they_are_repeated() -> None:
    Z = make_features(20, 3)
    y = Z[:, 0] * 2 - 1
    weights = torch.tensor([1.0, 3.0]).double().repeat(10)
    twice = torch.repeat_interleave(torch.arange(20), weights.long())
    # repeated rows change the spread that the penalty is relative to
    factor = spread_of(Z) ** 2 / spread_of(Z[twice]) ** 2
    for task, labels in (
        (Regression(mean=(0.0,), std=(1.0,)), y),
        (BinaryClassification(classes=(0, 1)), (y > y.median()).double()),
    ):
        one = minimise(task, task.head(3), Examples(Z, labels, weights), 0.2)
        other = minimise(task, task.head(3), Examples(Z[twice], labels[twice]), 0.2 * factor)
        # (Z - m) / s is invertible: the minimum does not depend on the mean
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_two_classes_are_logistic_regression(penalty: float) -> None:
    task = BinaryClassification(classes=("no", "yes"))
    Z = make_features(60, 5)
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=60))
    y = ((Z[:, 0] - Z[:, 3]) / 8 + noise > 0).double()
    found = minimise(task, task.head(5), Examples(Z, y), penalty)
    C = 1 / (60 * penalty * spread_of(Z) ** 2)
    theirs = LogisticRegression(C=C, tol=1e-12, max_iter=100_000, solver="newton-cholesky")
    theirs.fit(Z.numpy(), y.numpy())
    np.testing.assert_allclose(found.linears[0].weight, theirs.coef_, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.linears[0].bias, theirs.intercept_, rtol=1e-5, atol=1e-5)


def test_classes_are_multinomial_logistic_regression() -> None:
    task = Classification(classes=("a", "b", "c"))
    Z = make_features(60, 4)
    scores = Z @ torch.from_numpy(np.random.default_rng(2).normal(size=(4, 3)))
    y = scores.argmax(1)
    found = minimise(task, task.head(4), Examples(Z, y), 0.05)
    C = 1 / (60 * 0.05 * spread_of(Z) ** 2)
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, solver="newton-cg")
    theirs.fit(Z.numpy(), y.numpy())
    ours = torch.softmax(found(Z), -1).detach().numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(Z.numpy()), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    shift=st.floats(-50, 50),
    scale=st.floats(0.01, 100),
    penalty=st.sampled_from(PENALTIES),
    seed=st.integers(0, 50),
)
def test_scale_and_place_of_features_do_not_matter(
    shift: float, scale: float, penalty: float, seed: int
) -> None:
    task = Regression(mean=(0.0,), std=(1.0,))
    Z = torch.from_numpy(np.random.default_rng(seed).normal(size=(15, 4)))
    y = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=15))
    here = minimise(task, task.head(4), Examples(Z, y), penalty)(Z)
    moved = Z * scale + shift
    there = minimise(task, task.head(4), Examples(moved, y), penalty)(moved)
    torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-6)


KINDS: list[tuple[Task, Tensor]] = [
    (Regression(mean=(0.0,), std=(1.0,), loss="huber"), torch.linspace(-2, 2, 12)),
    (CensoredRegression(mean=0.0, std=1.0), torch.stack([torch.arange(12.0) - 6] * 2, 1)),
    (
        MultilabelClassification(labels=("x", "y")),
        torch.stack([torch.arange(12) > 5, torch.arange(12) < 3], 1).float(),
    ),
    (Ordinal(classes=(1, 2, 3)), torch.arange(12) // 4),
    (Counts(), torch.stack([torch.arange(12.0), torch.ones(12)], 1)),
    (Quantiles(mean=0.0, std=1.0), torch.linspace(-1, 1, 12)),
]


@pytest.mark.parametrize(("task", "targets"), KINDS, ids=lambda x: type(x).__name__)
def test_every_kind_of_task_has_a_probe(task: Task, targets: Tensor) -> None:
    Z = make_features(12, 3) + torch.arange(12)[:, None]
    head = task.head(3)
    assert can_probe(head)
    examples = Examples(Z.float(), targets)
    zero = mean_loss(task, torch.zeros(12, task.out_features), examples)
    fitted = minimise(task, head, examples.double(), 1e-3)
    with torch.no_grad():
        after = mean_loss(task, fitted(Z), examples.double())
    assert torch.isfinite(after)
    assert after < 0.8 * zero


def test_labels_of_places_and_pooled_heads_have_a_probe() -> None:
    rng = np.random.default_rng(0)
    Z = torch.from_numpy(rng.normal(size=(6, 4, 3))).float()
    Z[:, 3] = 0  # padding
    tags = (Z[..., 0] > 0).long()
    tags[:, 3] = -100
    task: Task = SequenceLabelling(classes=("O", "B-x"), monitor="accuracy")
    head = task.head(3)
    fit_probe(task, head, Examples(Z, tags), torch.zeros(6, 0, dtype=torch.bool), 0)
    assert (head(Z).argmax(-1) == tags)[:, :3].all()

    pooled = replace(BinaryClassification(classes=(0, 1)), pooled=True)
    labels = (Z[:, :3, 0].mean(1) > 0).float()
    groups = torch.stack([labels == 0, labels == 1], 1)
    head = pooled.head(3)
    fit_probe(pooled, head, Examples(Z, labels), groups, 0)
    assert ((head(Z)[:, 0] > 0) == labels.bool()).all()


def test_penalty_follows_the_signal() -> None:
    task = Regression(mean=(0.0,), std=(1.0,))
    rng = np.random.default_rng(0)
    Z = torch.from_numpy(rng.normal(size=(40, 10)))
    none = torch.zeros(40, 0, dtype=torch.bool)
    signal = Z @ torch.ones(10).double()
    noise = torch.from_numpy(rng.normal(size=40))
    assert choose_penalty(task, task.head(10), Examples(Z, signal), none, 0) == PENALTIES[0]
    assert choose_penalty(task, task.head(10), Examples(Z, noise), none, 0) >= 1.0


def test_folds_hold_each_class_and_never_the_only_one() -> None:
    classes = torch.tensor([0] * 10 + [1] * 5 + [2])
    groups = classes[:, None] == torch.arange(3)
    folds = deal_folds(groups, seed=3)
    assert folds is not None
    assert folds[15] == -1
    for fold in range(5):
        assert (classes[folds == fold] == 1).sum() == 1
        assert (classes[folds == fold] == 0).sum() == 2
    again = deal_folds(groups, seed=3)
    assert again is not None
    assert torch.equal(folds, again)


def test_too_few_examples_take_the_usual_penalty() -> None:
    task = BinaryClassification(classes=(0, 1))
    groups = torch.eye(2, dtype=torch.bool)
    assert deal_folds(groups, 0) is None
    examples = Examples(make_features(2, 3), torch.tensor([0.0, 1.0]).double())
    assert choose_penalty(task, task.head(3), examples, groups, 0) == USUAL


def test_features_that_never_change_predict_the_mean() -> None:
    task = Regression(mean=(0.0,), std=(1.0,))
    Z = torch.ones(5, 3).double()
    y = torch.arange(5).double()
    found = minimise(task, task.head(3), Examples(Z, y), 0.1)
    torch.testing.assert_close(found(Z)[:, 0], torch.full((5,), 2.0).double())


def test_loss_of_a_probe_is_a_minimum() -> None:
    """No small step from the solution of L-BFGS lowers J."""
    task = Ordinal(classes=(0, 1, 2, 3), method="cumulative")
    Z = make_features(24, 4)
    y = torch.arange(24) % 4
    head = minimise(task, task.head(4), Examples(Z, y), 0.1).requires_grad_(True)
    loss = mean_loss(task, head(Z), Examples(Z, y))
    loss = loss + 0.05 * spread_of(Z) ** 2 * head.linears[0].weight.pow(2).sum()
    gradients = torch.autograd.grad(loss, list(head.parameters()))
    assert max(float(g.abs().max()) for g in gradients) / sqrt(spread_of(Z)) < 1e-5


def test_segmentation_and_survival_are_built_with_linear_heads() -> None:
    for task in (Segmentation(classes=("a", "b")), Survival(ends=(1.0, 2.0))):
        assert can_probe(task.head(3))
    assert not can_probe(Regression(mean=(0.0,), std=(1.0,), depth=1).head(3))
