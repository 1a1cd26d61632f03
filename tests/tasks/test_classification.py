import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from src.tasks import MISSING, BadLabel, Classification

ABC = Classification(classes=("a", "b", "c"))


def reference(logits, target, smoothing=0.0, weights=None):
    """-(1 - e) w_y log p_y - e/C sum_c w_c log p_c of one element, written out in float64."""
    if target == MISSING:
        return 0.0
    logits = np.asarray(logits, dtype=np.float64)
    weights = np.ones(len(logits)) if weights is None else np.asarray(weights)
    log_p = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    return -(1 - smoothing) * weights[target] * log_p[target] - smoothing * (weights * log_p).mean()


def measure(task, logits, targets):
    metrics = task.build_metrics()
    for part_logits, part_targets in zip(logits.split(4), targets.split(4), strict=True):
        metrics.update(**task.measure(part_logits, part_targets))
    return {name: value.item() for name, value in task.compute(metrics).items()}


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 5),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    weighted=st.booleans(),
    missing=st.floats(0, 1),
)
def test_losses_against_float64(seed, classes, smoothing, weighted, missing):
    rng = np.random.default_rng(seed)
    weights = tuple(rng.uniform(0.1, 3, classes).tolist()) if weighted else None
    task = Classification(
        classes=tuple(range(classes)), label_smoothing=smoothing, class_weights=weights
    )
    logits = rng.normal(scale=5, size=(4, 3, classes))
    targets = np.where(rng.random((4, 3)) < missing, MISSING, rng.integers(classes, size=(4, 3)))
    got = task.losses(torch.tensor(logits), torch.tensor(targets))
    wanted = [
        reference(x, y, smoothing, weights)
        for x, y in zip(logits.reshape(-1, classes), targets.ravel(), strict=True)
    ]
    np.testing.assert_allclose(got.numpy().ravel(), wanted, rtol=1e-6, atol=1e-9)


def test_known_value():
    assert ABC.losses(torch.zeros(1, 3), torch.tensor([1])).item() == pytest.approx(math.log(3))
    smooth = Classification(classes=(0, 1), label_smoothing=0.2)
    log_p = [math.log(math.e / (1 + math.e)), math.log(1 / (1 + math.e))]
    got = smooth.losses(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item()
    assert got == pytest.approx(-0.9 * log_p[0] - 0.1 * log_p[1])


@pytest.mark.parametrize(
    "settings",
    [{}, {"label_smoothing": 0.3}, {"class_weights": (1.0, 2.0, 0.5), "label_smoothing": 0.1}],
)
def test_missing_labels_have_no_loss_and_no_gradient(settings):
    task = Classification(classes=("a", "b", "c"), **settings)
    logits = torch.randn(4, 3, requires_grad=True)
    losses = task.losses(logits, torch.tensor([0, MISSING, 2, MISSING]))
    losses.sum().backward()
    assert losses[[1, 3]].tolist() == [0, 0]
    assert logits.grad[[1, 3]].abs().max() == 0
    assert logits.grad[[0, 2]].abs().min() > 0
    probabilities = logits.detach().softmax(-1)
    if not settings:
        np.testing.assert_allclose(
            logits.grad[0], probabilities[0] - torch.tensor([1.0, 0, 0]), atol=1e-6
        )


def test_weights_first_used_in_an_evaluation_serve_in_training():
    task = Classification(classes=(0, 1), class_weights=(0.25, 0.62))
    with torch.inference_mode():
        task.losses(torch.zeros(1, 2), torch.tensor([0]))
    logits = torch.zeros(1, 2, requires_grad=True)
    task.losses(logits, torch.tensor([1])).sum().backward()
    np.testing.assert_allclose(logits.grad, [[0.31, -0.31]], rtol=1e-6)


def test_fit_learns_classes_in_order_and_keeps_those_set_by_hand():
    values = np.array(["b", None, "a", "c", "a"], dtype=object)
    assert Classification().fit(values, ["y"]).classes == ("a", "b", "c")
    assert Classification().fit(np.array([10, 9, 2, 10], dtype=object), ["y"]).classes == (2, 9, 10)
    assert Classification(classes=("c", "b", "a")).fit(values, ["y"]).classes == ("c", "b", "a")


def test_encode_and_decode_are_inverse():
    values = np.array(["c", None, "a", "b", float("nan")], dtype=object)
    encoded = ABC.encode(values)
    assert encoded.tolist() == [2, MISSING, 0, 1, MISSING]
    assert encoded.dtype == torch.long
    logits = 20 * torch.nn.functional.one_hot(encoded[[0, 2, 3]], 3).float()
    decoded = ABC.decode(logits)
    assert decoded[""] == ["c", "a", "b"]
    np.testing.assert_allclose(decoded["p_c"], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(np.sum([decoded[f"p_{name}"] for name in "abc"], 0), 1, rtol=1e-6)


def test_encode_refuses_a_class_that_training_lacks_and_names_the_row():
    with pytest.raises(BadLabel, match=r"'d', which the training labels \(a, b, c\)") as caught:
        ABC.encode(np.array(["a", "d"], dtype=object))
    assert caught.value.row == 1


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@settings(deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6), missing=st.floats(0, 0.95))
def test_metrics_against_sklearn(seed, classes, missing):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(30, classes)), dtype=torch.float32)
    targets = np.where(rng.random(30) < missing, MISSING, rng.integers(classes, size=30))
    task = Classification(classes=tuple(range(classes)))
    got = measure(task, logits, torch.tensor(targets))
    known = targets != MISSING
    if not known.any():
        assert all(math.isnan(value) for value in got.values())
        return
    y, guess = targets[known], logits.argmax(-1).numpy()[known]
    assert got["accuracy"] == pytest.approx(accuracy_score(y, guess), abs=1e-6)
    assert got["balanced_accuracy"] == pytest.approx(recall_of_present(y, guess), abs=1e-6)
    assert got["f1"] == pytest.approx(
        f1_score(y, guess, average="macro", zero_division=0), abs=1e-6
    )
    assert got.keys() == set(task.metric_names)


def test_f1_is_the_mean_over_classes_with_a_label_or_a_prediction():
    logits = 5 * torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1]), 4).float()
    task = Classification(classes=("a", "b", "c", "d"))
    got = measure(task, logits, torch.tensor([0, 0, 0, 2]))
    assert got["f1"] == pytest.approx(
        (4 / 5 + 0 + 0) / 3
    )  # a; b found but not there; c there but not found; not d
    assert got["balanced_accuracy"] == pytest.approx((2 / 3 + 0) / 2)  # only a and c have labels
    single = measure(task, logits[:2], torch.tensor([0, 0]))
    assert single["f1"] == single["balanced_accuracy"] == 1


def recall_of_present(y, guess):
    if len(set(y)) > 1:
        return balanced_accuracy_score(y, guess)
    return float((guess == y).mean())  # scikit-learn warns of a single class


def test_scores_and_count_of_outputs():
    assert ABC.out_features == 3
    assert ABC.score({"accuracy": 0.75, "f1": 0.5}) == 0.75
    assert Classification(monitor="f1").score({"accuracy": 0.75, "f1": torch.tensor(0.5)}) == 0.5


def test_elements_of_a_sequence_count_one_by_one():
    logits = torch.tensor([[[9.0, 0, 0], [0, 9, 0]], [[0, 9, 0], [0, 0, 9]]])
    got = measure(ABC, logits, torch.tensor([[0, MISSING], [0, 2]]))
    assert got["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing 1.0 is outside \[0, 1\)"),
        ({"label_smoothing": -0.1}, "label_smoothing -0.1"),
        ({"classes": ("a", "b"), "class_weights": (1.0,)}, "1 class_weights for 2 classes"),
        ({"class_weights": (1.0, -2.0)}, "class_weights hold -2.0"),
        ({"monitor": "auroc"}, "monitor 'auroc' is none of accuracy, balanced_accuracy, f1"),
        ({"weight": -1.0}, "weight -1.0 is negative"),
        ({"depth": -1}, "depth -1"),
        ({"width": 0}, "width 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        Classification(**settings)
    assert "Classification" in str(caught.value)


def test_class_weights_must_fit_the_classes_found():
    with pytest.raises(ValueError, match="2 class_weights for 3 classes"):
        Classification(class_weights=(1.0, 2.0)).fit(np.array(["a", "b", "c"], dtype=object), ["y"])


def test_several_columns_are_refused():
    with pytest.raises(ValueError, match="2 columns"):
        Classification().fit(np.array([["a", "b"]], dtype=object), ["u", "v"])
