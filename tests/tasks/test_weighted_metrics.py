"""Weights of rows in the metrics of each kind, against scikit-learn in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    Task,
)
from src.tasks.decisions import find_best_threshold

NAN = float("nan")


def evaluate(task: Task, outputs: torch.Tensor, targets: torch.Tensor, weights) -> dict[str, float]:
    """The metrics of rows that come in two batches, in which equal logits stay equal."""
    collection = task.assemble_metrics()
    for rows in (slice(0, 16), slice(16, None)):
        own = None if weights is None else weights[rows]
        task.update_metrics(collection, outputs[rows], targets[rows], own)
    return {name: float(value) for name, value in task.compute(collection).items()}


def draw(seed: int, rows: int = 40) -> tuple[np.random.Generator, torch.Tensor, np.ndarray]:
    """Weights with zeros among them, and which labels are known: those of weight 0 are not."""
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=rows) * (rng.random(rows) > 0.2)
    known = (rng.random(rows) > 0.2) & (weights > 0)
    known[:4] = True
    weights[:4] = [0.25, 0.5, 1.5, 3.0]
    return rng, torch.tensor(weights), known


@given(seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_binary(seed):
    rng, weights, known = draw(seed)
    logits = torch.tensor(rng.normal(size=(40, 1)).round(1))  # ties
    labels = (rng.random(40) < 0.5).astype(float)
    labels[:4] = [0, 1, 0, 1]
    task = BinaryClassification(classes=("no", "yes"), threshold=0.6)
    targets = torch.tensor(np.where(known, labels, NAN))
    got = evaluate(task, logits, targets, weights)

    w = weights.numpy()[known]
    y = labels[known]
    p = logits.sigmoid().squeeze(1).numpy()[known]
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, p > 0.6, sample_weight=w))
    wanted = sk.f1_score(y, p > 0.6, sample_weight=w, zero_division=NAN)
    assert got["f1"] == pytest.approx(wanted, nan_ok=True)
    assert got["auroc"] == pytest.approx(sk.roc_auc_score(y, p, sample_weight=w))
    wanted = sk.average_precision_score(y, p, sample_weight=w)
    assert got["average_precision"] == pytest.approx(wanted)


@given(seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_classification(seed):
    rng, weights, known = draw(seed)
    outputs = torch.tensor(rng.normal(size=(40, 3)))
    labels = rng.integers(0, 3, 40)
    targets = torch.tensor(np.where(known, labels, -100))
    got = evaluate(Classification(classes=(0, 1, 2)), outputs, targets, weights)

    w = weights.numpy()[known]
    y = labels[known]
    p = outputs.argmax(1).numpy()[known]
    seen = sorted(set(y))
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, p, sample_weight=w))
    recall = sk.recall_score(y, p, labels=seen, average=None, sample_weight=w)
    assert got["balanced_accuracy"] == pytest.approx(recall.mean())
    f1 = sk.f1_score(y, p, average="macro", sample_weight=w)
    assert got["f1"] == pytest.approx(f1)


@given(seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_regression(seed):
    rng, weights, known = draw(seed)
    outputs = torch.tensor(rng.normal(size=(40, 1)))
    labels = rng.normal(size=40)
    targets = torch.tensor(np.where(known, labels, NAN))
    got = evaluate(Regression(mean=(3.0,), std=(2.0,)), outputs, targets, weights)

    w = weights.numpy()[known]
    y = 3 + 2 * labels[known]
    p = 3 + 2 * outputs.squeeze(1).numpy()[known]
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(y, p, sample_weight=w))
    assert got["rmse"] == pytest.approx(sk.root_mean_squared_error(y, p, sample_weight=w))
    assert got["r2"] == pytest.approx(sk.r2_score(y, p, sample_weight=w))


def test_labels_and_numbers_of_a_vector():
    rng, weights, _ = draw(5)
    known = rng.random((40, 2)) > 0.3
    labels = (rng.random((40, 2)) < 0.5).astype(float)
    logits = torch.tensor(rng.normal(size=(40, 2)))
    task = MultilabelClassification(labels=("a", "b"), thresholds=(0.5, 0.4))
    got = evaluate(task, logits, torch.tensor(np.where(known, labels, NAN)), weights)

    w = np.broadcast_to(weights.numpy()[:, None], (40, 2))
    yes = logits.sigmoid().numpy() > [0.5, 0.4]
    wanted = sk.accuracy_score(labels[known], yes[known], sample_weight=w[known])
    assert got["accuracy"] == pytest.approx(wanted)
    columns = [(labels[k, i], logits[k, i].numpy(), w[k, i]) for i, k in enumerate(known.T)]
    aucs = [sk.roc_auc_score(y, p, sample_weight=own) for y, p, own in columns]
    assert got["auroc"] == pytest.approx(np.mean(aucs))

    vector = Regression(mean=(0.0, 1.0), std=(1.0, 3.0), names=("u", "v"))
    numbers = rng.normal(size=(40, 2))
    got = evaluate(vector, logits, torch.tensor(np.where(known, numbers, NAN)), weights)
    y = numbers * [1, 3] + [0, 1]
    p = logits.numpy() * [1, 3] + [0, 1]
    wanted = sk.mean_absolute_error(y[known], p[known], sample_weight=w[known])
    assert got["mae"] == pytest.approx(wanted)
    columns = [(y[k, i], p[k, i], w[k, i]) for i, k in enumerate(known.T)]
    r2 = [sk.r2_score(y, p, sample_weight=own) for y, p, own in columns]
    assert got["r2"] == pytest.approx(np.mean(r2))


def test_weights_of_one_change_nothing():
    rng, _, known = draw(3)
    logits = torch.tensor(rng.normal(size=(40, 1)))
    targets = torch.tensor(np.where(known, rng.random(40) < 0.5, NAN))
    task = BinaryClassification(classes=("no", "yes"), threshold=0.5)
    plain = evaluate(task, logits, targets, None)
    assert evaluate(task, logits, targets, torch.ones(40)) == pytest.approx(plain, abs=1e-6)


def test_the_best_threshold_counts_weights():
    scores = torch.tensor([0.1, 0.3, 0.7, 0.9])
    positive = torch.tensor([False, True, False, True])
    # by rows "> 0.2" has F1 0.8; a heavy negative at 0.7 makes "> 0.8" better
    assert find_best_threshold(scores, positive) == pytest.approx(0.2)
    heavy = torch.tensor([1.0, 1.0, 9.0, 1.0])
    assert find_best_threshold(scores, positive, heavy) == pytest.approx(0.8)


def test_a_kind_with_measures_of_its_own_counts_rows_alike():
    class Own(Regression):
        def measure(self, outputs, targets):
            return super().measure(outputs, targets)

    assert Regression(mean=(0.0,), std=(1.0,)).weighs_metrics
    task = Own(mean=(0.0,), std=(1.0,))
    assert not task.weighs_metrics
    outputs = torch.tensor([[0.0], [0.0]])
    got = evaluate(task, outputs, torch.tensor([1.0, 3.0]), torch.tensor([1.0, 9.0]))
    assert got["mae"] == 2
