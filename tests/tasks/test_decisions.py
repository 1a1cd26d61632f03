"""Thresholds and what is decided by them, against brute force and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from src.tasks import MISSING, BinaryClassification, MultilabelClassification
from src.tasks.decisions import (
    ScoredRows,
    Scores,
    compute_decision_metrics,
    count_decisions,
    find_best_threshold,
    find_best_thresholds,
)

NAN = float("nan")


def f1_of(scores, positive, threshold):
    yes = scores > threshold
    hits = int((yes & positive).sum())
    return 2 * hits / (int(yes.sum()) + int(positive.sum()))


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(2, 30), places=st.sampled_from([1, 2, 6]))
def test_no_threshold_has_a_higher_f1(seed, rows, places):
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.random(rows).round(places))
    positive = torch.tensor(rng.random(rows) < 0.3)
    got = find_best_threshold(scores, positive)
    if not positive.any() or positive.all():
        assert got == 0.5
        return
    around = [(s + d).item() for s in scores for d in (-1e-9, 0, 1e-9)]
    everything = [t for t in [0.0, 0.5, *around] if 0 <= t < 1]
    best = max(f1_of(scores, positive, t) for t in everything)
    assert f1_of(scores, positive, got) == best
    as_good = [t for t in everything if f1_of(scores, positive, t) == best]
    if 0.5 in as_good:
        assert got == 0.5


@pytest.mark.parametrize(
    ("scores", "labels", "threshold"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.5),  # 0.5 lies between the neighbours
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 0.25),  # the middle of the neighbours
        ([0.6, 0.7, 0.8, 0.9], [0, 0, 1, 1], 0.75),
        ([0.2, 0.3], [1, 0], 0.1),  # all are taken for positive
        ([0.3, 0.3, 0.3], [1, 0, 0], 0.15),
        (
            [0.1, 0.2, 0.7, 0.8],
            [1, 0, 0, 1],
            0.75,
        ),  # F1 is 2/3 at 0.05 and at 0.75: the nearer to 0.5
        ([0.0, 0.0, 1.0], [1, 0, 1], 0.5),
        (
            [0.0, 0.4],
            [1, 0],
            0.5,
        ),  # no threshold takes a probability of 0 for positive: F1 is 0 anywhere
        ([0.3, 0.6], [0, 0], 0.5),
        ([0.3, 0.4], [1, 1], 0.5),
        ([], [], 0.5),
        ([NAN, 0.4], [1, 0], 0.5),
    ],
)
def test_thresholds_by_hand(scores, labels, threshold):
    got = find_best_threshold(torch.tensor(scores, dtype=torch.float64), torch.tensor(labels) == 1)
    assert got == pytest.approx(threshold, abs=1e-15)


def test_of_two_places_as_far_from_the_middle_the_lower_counts():
    scores = torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64)
    # positives at both ends: F1 of all is 2/3, of the last alone 2/3 too
    assert find_best_threshold(scores, torch.tensor([True, False, False, True])) == 0.75
    assert (
        find_best_threshold(
            torch.tensor([0.0, 0.25, 0.75, 1.0]), torch.tensor([False, True, False, True])
        )
        == 0.125
    )


def test_neighbouring_floats_are_told_apart():
    low = 0.3
    high = math.nextafter(low, 1)
    scores = torch.tensor([low, high], dtype=torch.float64)
    threshold = find_best_threshold(scores, torch.tensor([False, True]))
    assert (scores > threshold).tolist() == [False, True]


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), missing=st.floats(0, 0.9))
def test_decisions_against_sklearn(seed, missing):
    rng = np.random.default_rng(seed)
    preds = torch.tensor(rng.random((20, 2)))
    target = np.where(rng.random((20, 2)) < missing, MISSING, rng.random((20, 2)) < 0.3)
    rows = ScoredRows(preds, torch.tensor(target, dtype=torch.int8))
    got = compute_decision_metrics(rows, (0.2, 0.7))
    counts = count_decisions(rows, (0.2, 0.7))
    for label, threshold in enumerate((0.2, 0.7)):
        known = target[:, label] != MISSING
        y, yes = target[known, label], preds[known, label].numpy() > threshold
        assert counts[label].sum() == known.sum()
        assert counts[label, 1, 1] == (yes & (y == 1)).sum()
        assert counts[label, 0, 1] == (yes & (y == 0)).sum()
        wanted = accuracy_score(y, yes) if len(y) else NAN
        assert got["accuracy"][label].item() == pytest.approx(wanted, nan_ok=True)
        wanted = f1_score(y, yes, zero_division=NAN) if len(y) else NAN
        assert got["f1"][label].item() == pytest.approx(wanted, nan_ok=True)


def test_scores_hold_what_all_batches_brought():
    scores = Scores(1)
    scores.update(torch.tensor([0.25, 0.5]), torch.tensor([1, MISSING]))
    scores.update(torch.tensor([[0.75]]), torch.tensor([[0]]))
    preds, target, weights = scores.compute()
    assert weights is None
    assert preds.tolist() == [[0.25], [0.5], [0.75]]
    assert target.tolist() == [[1], [MISSING], [0]]
    scores.reset()
    assert [part.shape for part in scores.read_own()[:2]] == [(0, 1), (0, 1)]


# -- tasks -----------------------------------------------------------------------------------------
def evaluated(task, outputs, targets):
    metrics = task.build_metrics()
    metrics.update(**task.measure(outputs, targets))
    return metrics


LOGITS = torch.tensor([[-3.0], [-2.0], [-1.0], [-0.5], [-0.25]])
LABELS = torch.tensor([0.0, 1.0, NAN, 1.0, 1.0])


def test_validation_chooses_a_binary_tasks_threshold():
    task = BinaryClassification(classes=("no", "yes"))
    chosen = task.choose(evaluated(task, LOGITS, LABELS))
    low, high = (1 / (1 + math.exp(-x)) for x in (-3.0, -2.0))
    assert chosen.threshold == pytest.approx((low + high) / 2)
    assert chosen.compute(evaluated(task, LOGITS, LABELS))["f1"] == 1
    assert (
        task.compute(evaluated(task, LOGITS, LABELS))["f1"] == 0
    )  # three positives, none found at 0.5
    assert task.compute(evaluated(task, LOGITS, LABELS))["accuracy"] == 0.25
    assert chosen.decode(LOGITS)[""] == ["no", "yes", "yes", "yes", "yes"]
    assert chosen.describe_choice("fraud") == "threshold of fraud: 0.08331"
    by_hand = BinaryClassification(classes=("no", "yes"), threshold=0.3)
    assert by_hand.choose(evaluated(task, LOGITS, LABELS)) is by_hand
    assert by_hand.decode(LOGITS)[""] == ["no", "no", "no", "yes", "yes"]


def test_validation_chooses_a_threshold_for_each_label():
    task = MultilabelClassification(labels=("u", "v", "w"))
    outputs = torch.tensor([[-3.0, 1.0, 0.0], [-1.0, 2.0, 0.0], [-1.0, 3.0, 0.0]])
    targets = torch.tensor([[0.0, 0, 0], [1, 0, 0], [NAN, 1, 0]])
    chosen = task.choose(evaluated(task, outputs, targets))
    u = (1 / (1 + math.exp(3)) + 1 / (1 + math.exp(1))) / 2
    v = (1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(-3))) / 2
    assert chosen.thresholds == pytest.approx((u, v, 0.5))
    decoded = chosen.decode(outputs)
    assert [decoded[name] for name in "uvw"] == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert chosen.compute(evaluated(task, outputs, targets))["f1"] == 1
    assert chosen.describe_choice("tags") == f"thresholds of tags: u {u:.4g}, v {v:.4g}, w 0.5"
    assert (
        find_best_thresholds(evaluated(task, outputs, targets)["scores"].compute())
        == chosen.thresholds
    )


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), threshold=st.floats(0, 0.99))
def test_a_table_of_predictions_has_the_accuracy_and_f1_that_are_reported(seed, threshold):
    rng = np.random.default_rng(seed)
    outputs = torch.tensor(
        rng.normal(scale=1e-3, size=(40, 1)) + math.log(max(threshold, 1e-3) / (1 - threshold))
    )
    labels = rng.integers(2, size=40)
    task = BinaryClassification(classes=(0, 1), threshold=threshold)
    got = task.compute(evaluated(task, outputs.float(), torch.tensor(labels).float()))
    guess = task.decode(outputs.float())[""]
    assert got["accuracy"].item() == pytest.approx(accuracy_score(labels, guess))
    assert got["f1"].item() == pytest.approx(
        f1_score(labels, guess, zero_division=NAN), nan_ok=True
    )


def test_a_description_brings_back_what_validation_chose():
    task = BinaryClassification(classes=("no", "yes"))
    assert task.restore_choice({"threshold": 0.125}).threshold == 0.125
    assert task.restore_choice({}) == task  # of a checkpoint from before
    by_hand = BinaryClassification(classes=("no", "yes"), threshold=0.3)
    assert by_hand.restore_choice({"threshold": 0.125}).threshold == 0.3
    several = MultilabelClassification(labels=("u", "v"))
    assert several.restore_choice({"thresholds": [0.25, 0.5]}).thresholds == (0.25, 0.5)


def test_values_of_single_labels_on_request():
    task = MultilabelClassification(labels=("u", "v", "w"), per_label=True)
    outputs = torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    targets = torch.tensor([[1.0, 1, NAN], [0, 0, NAN], [0, NAN, NAN]])
    metrics = evaluated(task, outputs, targets)
    got = {key: value.item() for key, value in task.compute_per_output(metrics).items()}
    assert got["f1/u"] == pytest.approx(2 / 3)
    assert got["f1/v"] == pytest.approx(2 / 3)
    assert got["accuracy/u"] == pytest.approx(2 / 3)
    assert got["accuracy/v"] == 0.5
    assert got["auroc/u"] == 0.75
    assert got["auroc/v"] == 0.5
    assert all(math.isnan(got[f"{metric}/w"]) for metric in task.metric_names)
    assert set(got) == {f"{metric}/{label}" for metric in task.metric_names for label in "uvw"}
    assert task.compute(metrics)["accuracy"].item() == pytest.approx(3 / 5)  # of all known ones
    assert MultilabelClassification(labels=("u", "v", "w")).compute_per_output(metrics) == {}
    nothing = evaluated(task, outputs, torch.full((3, 3), NAN))
    assert set(task.compute_per_output(nothing)) == set(got)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            BinaryClassification,
            {"threshold": 1.0},
            "threshold 1.0 is a probability, from 0 to below 1",
        ),
        (BinaryClassification, {"threshold": -0.1}, "threshold -0.1"),
        (
            MultilabelClassification,
            {"labels": ("u", "v"), "thresholds": (0.5,)},
            "1 thresholds for 2 labels",
        ),
        (
            MultilabelClassification,
            {"labels": ("u", "v"), "thresholds": (0.5, 2.0)},
            r"thresholds \(0.5, 2.0\)",
        ),
    ],
)
def test_thresholds_by_hand_are_probabilities(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)
