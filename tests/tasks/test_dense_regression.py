import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from src.errors import UserError
from src.tasks import BadLabel, DenseRegression
from src.tasks.error_sums import ErrorSums

NAN = float("nan")
DEPTH = DenseRegression(mean=(3.0,), std=(2.0,), missing_value=0.0)


def draw(seed, missing=0.3, shape=(5, 6, 7)):
    rng = np.random.default_rng(seed)
    labels = rng.uniform(0.5, 9, size=shape)
    labels[rng.random(shape) < missing] = 0
    labels.flat[:2] = 1.0, 4.0
    outputs = torch.tensor(rng.normal(size=(*shape, 1)))
    return outputs, labels


def measure(task, outputs, targets, size=2):
    metrics = task.build_metrics()
    for some, labels in zip(outputs.split(size), targets.split(size), strict=True):
        metrics.update(**task.measure(some, labels))
    return {name: value.item() for name, value in task.compute(metrics).items()}


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), missing=st.floats(0, 0.95))
def test_metrics_are_those_of_sklearn_over_all_pixels(seed, missing):
    outputs, labels = draw(seed, missing)
    values = measure(DEPTH, outputs, DEPTH.encode(labels))
    known = labels != 0
    truth, guess = labels[known], (outputs[..., 0].numpy() * 2 + 3)[known]
    assert values["mae"] == pytest.approx(mean_absolute_error(truth, guess), rel=1e-5)
    assert values["rmse"] == pytest.approx(mean_squared_error(truth, guess) ** 0.5, rel=1e-5)
    assert values["r2"] == pytest.approx(r2_score(truth, guess), rel=1e-5, abs=1e-5)
    wanted = (np.abs(truth - guess) / truth).mean()
    assert values["relative_error"] == pytest.approx(wanted, rel=1e-5)


def test_labels_at_zero_have_no_relative_error():
    task = DenseRegression(mean=(0.7,), std=(1.3,))
    targets = task.encode(np.array([[[0.0, 2.0], [-4.0, NAN]]]))
    outputs = task.encode(np.array([[[1.0, 3.0], [-3.0, 9.0]]]))[..., None]
    values = measure(task, outputs, targets)
    assert values["mae"] == pytest.approx(1)
    assert values["relative_error"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    zero = measure(task, outputs[:, :1, :1], targets[:, :1, :1])
    assert zero["mae"] == pytest.approx(1)
    assert np.isnan(zero["relative_error"])


def test_sums_keep_their_digits():
    metric = ErrorSums()
    many = torch.full((1000,), 0.1, dtype=torch.float64)
    none = torch.zeros(1000, dtype=torch.bool)
    metric.sums += torch.tensor([1e8, 0, 1e9, 0, 0], dtype=torch.float64)
    for _ in range(100):
        metric.update(many, torch.zeros(1000, dtype=torch.float64), none)
    wanted = (1e8 + 1e5 * 0.1) / (1e9 + 1e5)
    assert float(metric.compute()[0]) == pytest.approx(wanted, rel=1e-14)


def test_without_labels_nothing_is_defined():
    outputs, labels = draw(0)
    values = measure(DEPTH, outputs, DEPTH.encode(np.zeros_like(labels)))
    assert np.isnan(list(values.values())).all()


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_losses_of_alike_tasks_against_float64(loss):
    outputs, labels = draw(1, shape=(3, 4, 5, 2))
    task = DenseRegression(mean=(3.0,), std=(2.0,), missing_value=0.0, loss=loss, delta=0.5)
    got = task.losses(outputs, task.encode(labels).double())
    error = np.abs(outputs[..., 0].numpy() - (labels - 3) / 2)
    wanted = {
        "mse": error**2,
        "mae": error,
        "huber": np.where(error < 0.5, error**2 / 2, 0.5 * (error - 0.25)),
    }[loss]
    np.testing.assert_allclose(got.numpy(), np.where(labels == 0, 0, wanted), atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), level=st.sampled_from([0.0, 1e6]), missing=st.floats(0, 0.9))
def test_mean_and_spread_of_maps_read_one_by_one(seed, level, missing):
    _, labels = draw(seed, missing)
    labels[labels != 0] += level
    task = DenseRegression(missing_value=0.0).learn(iter(labels))
    known = labels[labels != 0]
    assert task.mean == pytest.approx((known.mean(),), rel=1e-12)
    assert task.std == pytest.approx((known.std(),), rel=1e-7)


def test_settings_by_hand_are_kept_and_nothing_is_read():
    def fail():
        raise AssertionError("read")
        yield

    assert DEPTH.learn(fail()) is DEPTH
    half = DenseRegression(mean=(0.0,)).learn([np.array([[1.0, 3.0]])])
    assert (half.mean, half.std) == ((0.0,), (1.0,))


def test_several_numbers_a_pixel():
    task = DenseRegression(names=("u", "v")).learn([np.array([[[1.0, 10.0], [3.0, 30.0]]])])
    assert (task.mean, task.std) == ((2.0, 20.0), (1.0, 10.0))
    targets = task.encode(np.array([[[[1.0, NAN], [3.0, 40.0]]]]))
    np.testing.assert_array_equal(targets.numpy(), [[[[-1, NAN], [1, 2]]]])
    outputs = torch.zeros(1, 1, 2, 2)
    assert task.losses(outputs, targets).tolist() == [[[[1, 0], [1, 4]]]]
    values = measure(task, outputs, targets)
    assert values["mae"] == pytest.approx((1 + 1 + 20) / 3)
    assert task.decode(outputs) == {"mean_u": [2.0], "mean_v": [20.0]}
    assert task.decode_map(outputs).shape == (1, 1, 2, 2)


def test_what_cannot_be_learnt():
    with pytest.raises(UserError, match="no label in the training split"):
        DenseRegression(missing_value=0.0).learn([np.zeros((2, 2))])
    with pytest.raises(UserError, match="single value"):
        DenseRegression().learn([np.full((3, 3), 0.1)])
    with pytest.raises(BadLabel, match="holds inf at row 0, column 1"):
        DEPTH.encode(np.array([[[1.0, np.inf]]]))
    with pytest.raises(UserError, match="has a label for each pixel"):
        DenseRegression(pooled=True)


def test_the_score_is_the_share_of_the_spread_explained():
    assert DEPTH.score({"r2": 0.4}) == 0.4
    by_mae = DenseRegression(mean=(3.0,), std=(2.0,), monitor="mae")
    assert by_mae.score({"mae": 0.5}) == 0.75
    by_relative = DenseRegression(monitor="relative_error")
    assert by_relative.score({"relative_error": 0.25}) == -0.25


def test_decoding():
    outputs = torch.tensor([[[[0.0], [1.0]]], [[[-1.0], [-1.0]]]])
    assert DEPTH.decode(outputs) == {"mean": [4.0, 1.0]}
    targets = DEPTH.encode(np.array([[[0.0, 5.0]], [[0.0, 0.0]]]))
    assert DEPTH.decode_targets(targets) == {"mean": [5.0, None]}
    maps = DEPTH.decode_map(outputs)
    assert maps.dtype == np.float32
    assert maps.tolist() == [[[3.0, 5.0]], [[1.0, 1.0]]]


def test_spread_of_ensembles_is_in_the_unit_of_the_label():
    outputs_M = torch.tensor([[[[[0.0], [1.0]]]], [[[[0.0], [2.0]]]]])
    mixed = DEPTH.average(outputs_M)
    assert mixed.flatten().tolist() == [0.0, 1.5]
    assert DEPTH.measure_spread(outputs_M, mixed) == {"spread": [0.5]}
