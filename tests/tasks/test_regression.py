import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from src.tasks import BadLabel, Regression

NAN = float("nan")
STANDARD = Regression(mean=(0.0,), std=(1.0,))
VECTOR = Regression(names=("u", "v"), mean=(1.0, -2.0), std=(2.0, 0.5))


def measure(task, outputs, targets, size=7):
    metrics = task.build_metrics()
    for part_outputs, part_targets in zip(outputs.split(size), targets.split(size), strict=True):
        metrics.update(**task.measure(part_outputs, part_targets))
    return {name: value.item() for name, value in task.compute(metrics).items()}


def reference(loss, error, delta):
    if loss == "mse":
        return error**2
    if loss == "mae":
        return np.abs(error)
    return np.where(np.abs(error) < delta, error**2 / 2, delta * (np.abs(error) - delta / 2))


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    loss=st.sampled_from(["mse", "mae", "huber"]),
    delta=st.sampled_from([0.5, 1.0, 3.0]),
    vector=st.booleans(),
    missing=st.floats(0, 1),
)
def test_losses_against_float64(seed, loss, delta, vector, missing):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(scale=2, size=(4, 3, 2 if vector else 1))
    targets = rng.normal(scale=2, size=(4, 3, 2) if vector else (4, 3))
    targets[rng.random(targets.shape) < missing] = NAN
    task = Regression(loss=loss, delta=delta, names=("u", "v") if vector else ())
    got = task.losses(torch.tensor(outputs), torch.tensor(targets))
    wanted = reference(loss, (outputs if vector else outputs[..., 0]) - targets, delta)
    np.testing.assert_allclose(got.numpy(), np.nan_to_num(wanted), rtol=1e-9)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_missing_labels_have_no_loss_and_no_gradient(loss):
    outputs = torch.tensor([[3.0], [5.0], [-4.0]], requires_grad=True)
    losses = Regression(loss=loss).losses(outputs, torch.tensor([1.0, NAN, 0.0]))
    losses.sum().backward()
    assert losses.tolist() == {"mse": [4, 0, 16], "mae": [2, 0, 4], "huber": [1.5, 0, 3.5]}[loss]
    assert (
        outputs.grad.flatten().tolist()
        == {"mse": [4, 0, -8], "mae": [1, 0, -1], "huber": [1, 0, -1]}[loss]
    )


def test_fit_learns_mean_and_spread_of_the_known_labels():
    task = Regression().fit(np.array([1.0, NAN, 3.0, 5.0]), ["y"])
    assert task.mean == (3.0,)
    assert task.std == pytest.approx((math.sqrt(8 / 3),))
    assert task.names == ()
    vector = Regression().fit(np.array([[1.0, 10], [3, NAN], [NAN, 30]]), ["u", "v"])
    assert (vector.names, vector.mean, vector.std) == (("u", "v"), (2.0, 20.0), (1.0, 10.0))
    assert vector.out_features == 2


def test_fit_keeps_what_was_set_by_hand():
    values = np.array([1.0, 3.0])
    assert Regression(mean=(0.0,)).fit(values, ["y"]).mean == (0.0,)
    assert Regression(mean=(0.0,)).fit(values, ["y"]).std == (1.0,)
    assert Regression(std=(9.0,)).fit(values, ["y"]).std == (9.0,)
    assert Regression(std=(9.0,)).fit(np.array([2.0, 2.0]), ["y"]).mean == (2.0,)
    assert Regression(names=("a", "b")).fit(np.array([[1.0, 2], [2, 3]]), ["u", "v"]).names == (
        "a",
        "b",
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9, -1 / 3])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_fit_refuses_a_single_value_whatever_rounding_makes_of_its_spread(value, count):
    with pytest.raises(ValueError, match="single value"):
        Regression().fit(np.full(count, value), ["y"])


def test_fit_refuses_an_output_without_labels():
    with pytest.raises(ValueError, match="no label for 'v'"):
        Regression().fit(np.array([[1.0, NAN], [2.0, NAN]]), ["u", "v"])


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20, unique=True).filter(
        lambda v: max(v) - min(v) > 1e-3
    )
)
def test_decode_undoes_encode(values):
    values = np.array(values)
    task = Regression().fit(values, ["y"])
    encoded = task.encode(values)
    np.testing.assert_allclose(encoded.double().mean(), 0, atol=1e-5)
    np.testing.assert_allclose(encoded.double().square().mean(), 1, rtol=1e-4)
    np.testing.assert_allclose(
        task.decode(encoded[:, None])[""], values, rtol=1e-5, atol=1e-6 * np.abs(values).max()
    )


def test_encode_and_decode_of_vectors():
    encoded = VECTOR.encode(np.array([[5.0, -1.0], [1.0, NAN]]))
    np.testing.assert_array_equal(encoded.numpy(), [[2, 2], [0, NAN]])
    assert VECTOR.decode(torch.tensor([[2.0, 2.0], [0.0, -1.0]])) == {
        "u": [5.0, 1.0],
        "v": [-1.0, -2.5],
    }


@pytest.mark.parametrize(
    ("value", "message"), [("tall", "'tall' where a number"), (float("inf"), "must be finite")]
)
def test_encode_refuses_what_is_no_finite_number(value, message):
    with pytest.raises(BadLabel, match=message) as caught:
        STANDARD.encode(np.array([1.0, None, value], dtype=object))
    assert caught.value.row == 2


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    missing=st.floats(0, 0.95),
    vector=st.booleans(),
    offset=st.sampled_from([0.0, 2000.0, 1e6]),
)
def test_metrics_against_sklearn(seed, missing, vector, offset):
    rng = np.random.default_rng(seed)
    y = offset + rng.normal(size=(30, 2 if vector else 1)) * ([3.0, 0.2] if vector else [7.0])
    y[rng.random(y.shape) < missing] = NAN
    y[:2] = offset + np.array([[0.0], [5.0]])  # each output has two labels that differ
    values = y if vector else y[:, 0]
    task = Regression().fit(values, ["u", "v"][: y.shape[1]])
    outputs = rng.normal(size=y.shape).astype(np.float32)
    got = measure(task, torch.tensor(outputs), task.encode(values))
    guess = outputs * np.array(task.std) + np.array(task.mean)
    known = ~np.isnan(y)
    assert got["mae"] == pytest.approx(mean_absolute_error(y[known], guess[known]), rel=1e-5)
    assert got["rmse"] == pytest.approx(
        math.sqrt(mean_squared_error(y[known], guess[known])), rel=1e-5
    )
    r2 = [r2_score(y[k, i], guess[k, i]) for i, k in enumerate(known.T)]
    assert got["r2"] == pytest.approx(np.mean(r2), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("offset", "spread"), [(2000.0, 5.0), (1e6, 1e3), (1e9, 1.0)])
def test_a_large_offset_costs_no_digits(offset, spread):
    y = offset + spread * np.arange(-10.0, 11.0)
    guess = y + spread * np.tile([0.5, -0.5, 0.25], 7)
    task = Regression().fit(y, ["y"])
    got = measure(task, torch.tensor((guess - task.mean[0]) / task.std[0])[:, None], task.encode(y))
    assert got["mae"] == pytest.approx(spread * 1.25 / 3, rel=1e-5)
    assert got["rmse"] == pytest.approx(spread * math.sqrt((0.25 + 0.25 + 0.0625) / 3), rel=1e-5)
    assert got["r2"] == pytest.approx(r2_score(y, guess), abs=1e-6)


def test_r2_of_an_evaluation_far_from_the_training_mean():
    """The mean of an evaluation of 2020 to 2024 is far from the training labels, 1900 to 1950."""
    task = Regression().fit(np.arange(1900.0, 1951.0), ["year"])
    y = np.array([2020.0, 2021.0, 2022.0, 2023.0, 2024.0])
    guess = y + np.array([0.5, 0, -0.5, 0, 0.5])
    got = measure(
        task,
        torch.tensor((guess - task.mean[0]) / task.std[0])[:, None].float(),
        task.encode(y),
        size=2,
    )
    assert got["r2"] == pytest.approx(r2_score(y, guess), abs=1e-4)


@pytest.mark.parametrize("targets", [[1.0, NAN], [2.0, 2.0], [0.1, 0.1]])
def test_r2_without_two_distinct_labels_is_undefined(targets):
    got = measure(STANDARD, torch.zeros(2, 1), torch.tensor(targets))
    assert math.isnan(got["r2"])
    assert got["mae"] == pytest.approx(np.nanmean(np.abs(targets)))


def test_no_label_means_no_metric():
    assert all(
        math.isnan(value)
        for value in measure(STANDARD, torch.zeros(2, 1), torch.tensor([NAN, NAN])).values()
    )


def test_r2_is_the_mean_over_the_outputs_that_have_one():
    targets = torch.tensor([[0.0, 1.0], [2.0, NAN], [4.0, NAN]])
    got = measure(VECTOR, torch.tensor([[0.0, 1.0], [2.0, 1.0], [3.0, 1.0]]), targets)
    assert got["r2"] == pytest.approx(1 - 1 / 8)


def test_scores_rise_with_quality_whatever_is_watched():
    values = {"mae": 1.0, "rmse": 2.0, "r2": 0.5}
    task = {"mean": (0.0,), "std": (4.0,)}
    assert Regression(**task).score(values) == 0.5
    assert Regression(**task, monitor="mae").score(values) == 0.75
    assert Regression(**task, monitor="rmse").score({"rmse": torch.tensor(2.0)}) == 0.5
    vector = Regression(names=("u", "v"), mean=(0.0, 0.0), std=(2.0, 6.0), monitor="mae")
    assert vector.score(values) == 0.75
    assert math.isnan(Regression(**task, monitor="mae").score({"mae": NAN}))


def test_what_a_regression_adds_to_the_score_is_bounded_below():
    task = {"mean": (0.0,), "std": (4.0,)}
    assert Regression(**task).score({"r2": torch.tensor(-102.0)}) == -1
    assert Regression(**task).score({"r2": -0.75}) == -0.75
    assert Regression(**task).score({"r2": float("-inf")}) == -1
    assert Regression(**task, monitor="mae").score({"mae": 80.0}) == -1
    assert Regression(**task, monitor="rmse").score({"rmse": 6.0}) == -0.5
    assert math.isnan(Regression(**task).score({"r2": NAN}))


def test_each_output_of_a_vector_is_bounded_by_itself():
    targets = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    outputs = torch.tensor([[0.0, 100.0], [2.0, 3.0], [3.0, 5.0]])
    metrics = VECTOR.build_metrics()
    metrics.update(**VECTOR.measure(outputs, targets))
    reported = VECTOR.compute(metrics)
    assert reported["r2"].item() == pytest.approx((1 - 1 / 8 + 1 - 99**2 / 8) / 2)
    assert VECTOR.bound_for_score(metrics)["r2"].item() == pytest.approx((1 - 1 / 8 - 1) / 2)
    assert VECTOR.score({**reported, **VECTOR.bound_for_score(metrics)}) == pytest.approx(
        (1 - 1 / 8 - 1) / 2
    )
    assert STANDARD.bound_for_score(STANDARD.build_metrics()) == {}


def test_outputs_may_be_parameters_of_a_distribution():
    @dataclass(frozen=True, kw_only=True)
    class Gaussian(Regression):
        @property
        def out_features(self):
            return 2

        def predict(self, outputs):
            return outputs[..., :1]

    task = Gaussian(mean=(10.0,), std=(2.0,))
    outputs = torch.tensor([[0.0, -1.0], [1.0, -1.0], [2.0, 5.0]])
    got = measure(task, outputs, torch.tensor([0.5, 1.0, NAN]))
    assert got["mae"] == pytest.approx(0.5)
    assert got["r2"] == pytest.approx(1 - 0.25 / 0.125)
    assert task.decode(outputs) == {"": [10.0, 12.0, 14.0]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hubert"}, "loss 'hubert' is none of mse, mae, huber"),
        ({"delta": 0.0}, "delta 0.0"),
        ({"std": (0.0,)}, r"std \(0.0,\) must be above 0"),
        ({"mean": 40.0}, "mean 40.0 where a list of 1"),
        ({"names": ("u", "v"), "std": (1.0,)}, "a list of 2"),
        ({"monitor": "accuracy"}, "monitor 'accuracy' is none of mae, rmse, r2"),
        ({"weight": -0.5}, "weight -0.5"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        Regression(**settings)
    assert "Regression" in str(caught.value)
