import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from src.tasks import BadLabel, BinaryClassification

NAN = float("nan")
TASK = BinaryClassification(classes=("no", "yes"))


def measure(task, logits, targets, size=7):
    metrics = task.build_metrics()
    for part_logits, part_targets in zip(logits.split(size), targets.split(size), strict=True):
        metrics.update(**task.measure(part_logits, part_targets))
    return {name: value.item() for name, value in task.compute(metrics).items()}


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31), pos_weight=st.sampled_from([1.0, 0.3, 4.0]), missing=st.floats(0, 1)
)
def test_losses_against_float64(seed, pos_weight, missing):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=8, size=(5, 3, 1))
    targets = np.where(rng.random((5, 3)) < missing, NAN, rng.integers(2, size=(5, 3)))
    got = BinaryClassification(pos_weight=pos_weight).losses(
        torch.tensor(logits), torch.tensor(targets)
    )
    x = logits[..., 0]
    wanted = np.where(targets == 1, pos_weight * np.logaddexp(0, -x), np.logaddexp(0, x))
    np.testing.assert_allclose(
        got.numpy(), np.where(np.isnan(targets), 0, wanted), rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("pos_weight", [1.0, 3.0])
def test_missing_labels_have_no_loss_and_no_gradient(pos_weight):
    logits = torch.zeros(3, 1, requires_grad=True)
    losses = BinaryClassification(pos_weight=pos_weight).losses(
        logits, torch.tensor([1.0, NAN, 0.0])
    )
    losses.sum().backward()
    np.testing.assert_allclose(
        losses.detach(), [pos_weight * math.log(2), 0, math.log(2)], rtol=1e-6
    )
    assert logits.grad.flatten().tolist() == [-pos_weight / 2, 0, 0.5]


def test_pos_weight_first_used_in_an_evaluation_serves_in_training():
    task = BinaryClassification(pos_weight=7.25)
    with torch.inference_mode():
        task.losses(torch.zeros(2, 1), torch.ones(2))
    logits = torch.zeros(1, 1, requires_grad=True)
    task.losses(logits, torch.ones(1)).sum().backward()
    assert logits.grad.item() == pytest.approx(-7.25 / 2)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["yes", "no", None, "no"], ("no", "yes")),
        ([True, False, None], (False, True)),
        ([1, 0, 0], (0, 1)),
        ([">50K", "<=50K"], ("<=50K", ">50K")),
        ([10, 9], (9, 10)),
    ],
)
def test_fit_takes_the_later_value_for_positive(values, classes):
    values = np.array(values, dtype=object)
    task = BinaryClassification().fit(values, ["y"])
    assert task.classes == classes
    wanted = [NAN if v is None else float(v == classes[1]) for v in values]
    np.testing.assert_array_equal(task.encode(values).numpy(), wanted)


def test_fit_keeps_classes_set_by_hand():
    task = BinaryClassification(classes=("yes", "no")).fit(
        np.array(["no", "yes"], dtype=object), ["y"]
    )
    assert task.classes == ("yes", "no")
    assert task.encode(np.array(["no", "yes"], dtype=object)).tolist() == [1, 0]


@pytest.mark.parametrize(("values", "count"), [(["a"], 1), (["a", "b", "c"], 3)])
def test_fit_refuses_other_than_two_values(values, count):
    with pytest.raises(ValueError, match=f"has {count} values"):
        BinaryClassification().fit(np.array(values, dtype=object), ["y"])


def test_encode_refuses_a_third_class():
    with pytest.raises(BadLabel, match="'maybe'") as caught:
        TASK.encode(np.array(["no", "yes", "maybe"], dtype=object))
    assert caught.value.row == 2


def test_decode():
    decoded = TASK.decode(torch.tensor([[0.0], [-3.0], [2.0]]))
    assert decoded[""] == ["no", "no", "yes"]  # at 0.5 it is no, as torchmetrics has it
    np.testing.assert_allclose(
        decoded["p_yes"], [0.5, 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-2))], rtol=1e-6
    )


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), missing=st.floats(0, 0.95), ties=st.booleans())
def test_metrics_against_sklearn(seed, missing, ties):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=40).round(1 if ties else 6)
    targets = np.where(rng.random(40) < missing, NAN, rng.random(40) < 0.4)
    got = measure(
        TASK,
        torch.tensor(logits, dtype=torch.float32)[:, None],
        torch.tensor(targets, dtype=torch.float32),
    )
    known = ~np.isnan(targets)
    y, x = targets[known], logits[known]
    if not known.any():
        assert all(math.isnan(value) for value in got.values())
        return
    assert got["accuracy"] == pytest.approx(accuracy_score(y, x > 0), abs=1e-6)
    assert got["f1"] == pytest.approx(
        f1_score(y, x > 0, zero_division=np.nan), abs=1e-6, nan_ok=True
    )
    if len(set(y)) == 2:
        assert got["auroc"] == pytest.approx(roc_auc_score(y, x), abs=1e-6)
        assert got["average_precision"] == pytest.approx(average_precision_score(y, x), abs=1e-6)
    else:
        assert math.isnan(got["auroc"])
        assert math.isnan(got["average_precision"])


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_ranking_metrics_of_a_single_class_are_undefined(label):
    got = measure(TASK, torch.tensor([[1.0], [-1.0]]), torch.tensor([label, label]))
    assert math.isnan(got["auroc"])
    assert math.isnan(got["average_precision"])
    assert got["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("logits", "labels", "f1"),
    [
        ([-1.0, -1.0], [0.0, 0.0], NAN),  # nothing to find, and nothing found
        ([1.0, -1.0], [0.0, 0.0], 0),  # one found that is none
        ([-1.0, -1.0], [1.0, 0.0], 0),  # one not found
        ([1.0, -1.0], [1.0, NAN], 1),
        ([1.0, -1.0], [NAN, 0.0], NAN),  # what is found where nobody knows does not count
    ],
)
def test_f1_of_nothing_is_undefined(logits, labels, f1):
    got = measure(TASK, torch.tensor(logits)[:, None], torch.tensor(labels))
    assert got["f1"] == pytest.approx(f1, nan_ok=True)
    assert not math.isnan(got["accuracy"])


def test_logits_that_all_lie_between_0_and_1_are_logits():
    logits = torch.tensor([[0.1], [0.2], [0.4], [0.9]])  # all above 0: four times yes
    got = measure(TASK, logits, torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert got["accuracy"] == 0.25
    assert got["f1"] == pytest.approx(2 / 5)
    assert got["auroc"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ("a",)}, "1 classes where 2"),
        ({"classes": ("a", "b", "c")}, "3 classes where 2"),
        ({"pos_weight": 0.0}, "pos_weight 0.0"),
        ({"pos_weight": -2.0}, "pos_weight -2.0"),
        ({"monitor": "r2"}, "monitor 'r2'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        BinaryClassification(**settings)
    assert "BinaryClassification" in str(caught.value)


def test_several_columns_are_refused():
    with pytest.raises(ValueError, match="2 columns"):
        BinaryClassification(classes=(0, 1)).fit(np.zeros((3, 2)), ["u", "v"])
