import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from src.tasks import BadLabel, MultilabelClassification

NAN = float("nan")
TASK = MultilabelClassification(labels=("u", "v", "w"))


def measure(task, logits, targets, size=7):
    metrics = task.build_metrics()
    for part_logits, part_targets in zip(logits.split(size), targets.split(size), strict=True):
        metrics.update(**task.measure(part_logits, part_targets))
    return {name: value.item() for name, value in task.compute(metrics).items()}


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    pos_weight=st.sampled_from([1.0, 2.5, (0.5, 1.0, 4.0)]),
    missing=st.floats(0, 1),
)
def test_losses_against_float64(seed, pos_weight, missing):
    rng = np.random.default_rng(seed)
    x = rng.normal(scale=8, size=(5, 3))
    targets = np.where(rng.random((5, 3)) < missing, NAN, rng.integers(2, size=(5, 3)))
    got = MultilabelClassification(pos_weight=pos_weight).losses(
        torch.tensor(x), torch.tensor(targets)
    )
    wanted = np.where(
        targets == 1, np.asarray(pos_weight) * np.logaddexp(0, -x), np.logaddexp(0, x)
    )
    np.testing.assert_allclose(
        got.numpy(), np.where(np.isnan(targets), 0, wanted), rtol=1e-6, atol=1e-12
    )


def test_missing_labels_have_no_loss_and_no_gradient():
    logits = torch.zeros(2, 3, requires_grad=True)
    losses = MultilabelClassification(pos_weight=(1.0, 2.0, 4.0)).losses(
        logits, torch.tensor([[1, NAN, 1], [NAN, 0, NAN]])
    )
    losses.sum().backward()
    np.testing.assert_allclose(
        losses.detach(), math.log(2) * np.array([[1, 0, 4], [0, 1, 0]]), rtol=1e-6
    )
    assert logits.grad.tolist() == [[-0.5, 0, -2], [0, 0.5, 0]]


def test_fit_takes_the_columns_names_and_keeps_those_set_by_hand():
    values = np.array([[0.0, 1.0, NAN], [1.0, 1.0, 0.0]])
    assert MultilabelClassification().fit(values, ["a", "b", "c"]).labels == ("a", "b", "c")
    assert TASK.fit(values, ["a", "b", "c"]).labels == ("u", "v", "w")


def test_fit_refuses_one_column_or_another_number_of_them():
    with pytest.raises(ValueError, match="must be a list of columns"):
        MultilabelClassification().fit(np.zeros(3), ["a"])
    with pytest.raises(ValueError, match="one for each of the labels u, v, w"):
        TASK.fit(np.zeros((3, 2)), ["a", "b"])


def test_encode_and_decode_are_inverse():
    values = np.array([[True, False, None], [0, 1, 1]], dtype=object)
    encoded = TASK.encode(values)
    np.testing.assert_array_equal(encoded.numpy(), [[1, 0, NAN], [0, 1, 1]])
    decoded = TASK.decode(20 * (encoded - 0.5).nan_to_num(-1))
    assert [decoded[name] for name in "uvw"] == [[1, 0], [0, 1], [0, 1]]
    np.testing.assert_allclose(decoded["p_u"], [1, 0], atol=1e-4)


def test_encode_refuses_other_than_0_and_1_and_names_label_and_row():
    with pytest.raises(BadLabel, match="holds 2 for 'v' where 0 or 1") as caught:
        TASK.encode(np.array([[0, 1, NAN], [1, 2, 0]]))
    assert caught.value.row == 1
    with pytest.raises(BadLabel, match="'x' where a number") as caught:
        TASK.encode(np.array([[0, 1, "x"]], dtype=object))
    assert caught.value.row == 0


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), missing=st.floats(0, 0.98))
def test_metrics_against_sklearn(seed, missing):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(25, 3)).astype(np.float32)
    targets = np.where(rng.random((25, 3)) < missing, NAN, rng.random((25, 3)) < [0.1, 0.5, 0.9])
    got = measure(TASK, torch.tensor(x), torch.tensor(targets, dtype=torch.float32))
    known = ~np.isnan(targets)
    if not known.any():
        assert all(math.isnan(value) for value in got.values())
        return
    columns = [(targets[known[:, i], i], x[known[:, i], i]) for i in range(3)]
    both = [(y, s) for y, s in columns if len(set(y)) == 2]
    assert got["accuracy"] == pytest.approx(((x > 0) == targets)[known].mean(), abs=1e-6)
    f1 = [f1_score(y, s > 0, zero_division=np.nan) for y, s in columns if len(y)]
    wanted = NAN if np.isnan(f1).all() else np.nanmean(f1)
    assert got["f1"] == pytest.approx(wanted, abs=1e-6, nan_ok=True)
    if both:
        assert got["auroc"] == pytest.approx(
            np.mean([roc_auc_score(y, s) for y, s in both]), abs=1e-6
        )
        assert got["average_precision"] == pytest.approx(
            np.mean([average_precision_score(y, s) for y, s in both]), abs=1e-6
        )
    else:
        assert math.isnan(got["auroc"])
        assert math.isnan(got["average_precision"])


def test_a_label_that_nobody_knows_does_not_count():
    logits = torch.tensor([[2.0, 1.0, 3.0], [-1.0, 1.0, 3.0], [0.5, 1.0, 3.0]])
    targets = torch.tensor([[1.0, NAN, 1.0], [0.0, NAN, 1.0], [0.0, NAN, 1.0]])
    got = measure(TASK, logits, targets)
    assert got["accuracy"] == pytest.approx(5 / 6)
    assert got["f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert got["auroc"] == 1  # of the first label alone: the third has no negative
    assert got["average_precision"] == 1


def test_f1_is_the_mean_over_the_labels_for_which_it_is_defined():
    logits = torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, -1.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    got = measure(
        TASK, logits, targets
    )  # of the second label there is nothing to find, and nothing is found
    assert got["f1"] == pytest.approx((2 / 3 + 0) / 2)
    nothing = measure(TASK, torch.full((2, 3), -1.0), torch.zeros(2, 3))
    assert math.isnan(nothing["f1"])
    assert nothing["accuracy"] == 1


def test_logits_that_all_lie_between_0_and_1_are_logits():
    got = measure(TASK, torch.tensor([[0.1, 0.2, 0.9]]), torch.tensor([[0.0, 0.0, 1.0]]))
    assert got["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pos_weight": 0.0}, "pos_weight 0.0"),
        ({"pos_weight": (1.0, -1.0)}, "pos_weight"),
        (
            {"labels": ("a", "b"), "pos_weight": (1.0, 2.0, 3.0)},
            "3 values of pos_weight for 2 labels",
        ),
        ({"monitor": "loss"}, "monitor 'loss'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        MultilabelClassification(**settings)
    assert "MultilabelClassification" in str(caught.value)
