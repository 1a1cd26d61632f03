"""CensoredRegression against its definition in float64, and against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from src.data.kinds import task_from_plain
from src.errors import UserError
from src.tasks import CensoredRegression, Regression
from tests.tasks.measuring import check_batched, check_gradient, check_missing, measure

NAN = float("nan")
LOSSES = ("mse", "mae", "huber")


def make(loss="mse", **settings):
    return CensoredRegression(loss=loss, mean=10.0, std=4.0, **settings)


def draw(rows=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs = 2 * torch.randn(rows, 1, generator=generator)
    numbers = torch.randn(rows, generator=generator)
    signs = torch.randint(-1, 2, (rows,), generator=generator).float()
    return outputs, torch.stack([numbers, signs], -1)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), loss=st.sampled_from(LOSSES))
def test_losses_against_their_definition(seed, loss):
    outputs, targets = draw(9, seed)
    wanted = []
    for o, (y, sign) in zip(outputs[:, 0].tolist(), targets.tolist(), strict=True):
        error = {0.0: abs(o - y), 1.0: max(y - o, 0.0), -1.0: max(o - y, 0.0)}[sign]
        huber = error**2 / 2 if error < 1 else error - 0.5
        wanted.append({"mse": error**2, "mae": error, "huber": huber}[loss])
    losses = make(loss).losses(outputs.double(), targets.double())
    np.testing.assert_allclose(losses[:, 0].numpy(), wanted, rtol=1e-9, atol=1e-12)
    assert torch.equal(losses[:, 0], losses[:, 1])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), loss=st.sampled_from(LOSSES))
def test_without_bounds_it_is_a_regression(seed, loss):
    outputs, targets = draw(9, seed)
    targets[:, 1] = 0
    regression = Regression(mean=(10.0,), std=(4.0,), loss=loss)
    wanted = regression.losses(outputs, targets[:, 0])
    torch.testing.assert_close(make(loss).losses(outputs, targets)[:, 0], wanted)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), loss=st.sampled_from(LOSSES))
def test_mirrored_labels_have_the_same_losses(seed, loss):
    outputs, targets = draw(9, seed)
    torch.testing.assert_close(
        make(loss).losses(-outputs, -targets), make(loss).losses(outputs, targets)
    )


def test_beyond_its_bound_a_prediction_has_no_gradient():
    outputs = torch.tensor([[3.0], [-3.0], [3.0], [-3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [1.0, -1.0]])
    losses = make().losses(outputs, targets)
    losses[:, 0].sum().backward()
    assert losses[:, 0].tolist() == [0, 16, 4, 0]
    assert outputs.grad.flatten().tolist() == [0, -8, 4, 0]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_missing_labels_and_alike_tasks(loss):
    outputs, targets = draw(12)
    check_gradient(make(loss), outputs, targets)
    check_missing(make(loss), outputs, targets, torch.arange(12) % 4 == 0)
    other = CensoredRegression(loss=loss, mean=0.0, std=1.0, monitor="rmse")
    check_batched(make(loss), other, outputs.view(6, 2, 1), targets.view(6, 2, 2))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), weighted=st.booleans())
def test_metrics_against_sklearn(seed, weighted):
    task = make()
    outputs, targets = draw(40, seed)
    weights = torch.rand(40, dtype=torch.float64) + 0.1 if weighted else None
    own = np.ones(40) if weights is None else weights.numpy()
    guess = 10 + 4 * outputs[:, 0].double().numpy()
    y, sign = (10 + 4 * targets[:, 0].double().numpy(), targets[:, 1].numpy())
    exact, bound = sign == 0, sign != 0
    labels = (y[exact], guess[exact])
    assert measure(task, outputs, targets, weights) == pytest.approx(
        {
            "mae": mean_absolute_error(*labels, sample_weight=own[exact]),
            "rmse": mean_squared_error(*labels, sample_weight=own[exact]) ** 0.5,
            "r2": r2_score(*labels, sample_weight=own[exact]),
            "right_side": np.average(sign[bound] * (guess - y)[bound] >= 0, weights=own[bound]),
        },
        rel=1e-5,
    )


def test_metrics_that_labels_do_not_define():
    task = make()
    bounds = measure(task, torch.zeros(2, 1), torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    assert np.isnan([bounds["mae"], bounds["rmse"], bounds["r2"]]).all()
    assert bounds["right_side"] == 0.5
    numbers = measure(task, torch.zeros(2, 1), torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert np.isnan(numbers["right_side"])
    assert numbers["mae"] == pytest.approx(6.0)
    nothing = measure(task, torch.zeros(2, 1), torch.full((2, 2), NAN))
    assert np.isnan(list(nothing.values())).all()


def test_labels_as_people_write_them():
    values = np.array(["12.5", ">10", "<0.1", None, 3.5], dtype=object)
    task = CensoredRegression().fit(values, ["ic50"])
    numbers = np.array([12.5, 10, 0.1, 3.5])
    assert (task.mean, task.std) == pytest.approx((numbers.mean(), numbers.std()))
    targets = task.encode(values)
    assert targets[:, 1].tolist()[:3] == [0, 1, -1]
    assert targets.isnan().all(1).tolist() == [False, False, False, True, False]
    assert task.decode_targets(targets) == {"": ["12.5", ">10", "<0.1", None, "3.5"]}
    assert task.decode(torch.zeros(1, 1))[""] == [pytest.approx(numbers.mean())]
    with pytest.raises(UserError, match="single value"):
        CensoredRegression().fit(np.array([">10", "10"], dtype=object), ["y"])
    with pytest.raises(UserError, match="2 columns, where CensoredRegression has one"):
        CensoredRegression().fit(np.ones((2, 2)), ["u", "v"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "tobit"}, "none of mse, mae, huber"),
        ({"delta": 0.0}, "delta 0.0 must be above 0"),
        ({"std": -1.0}, "std -1.0 must be above 0"),
        ({"monitor": "f1"}, "none of mae, rmse, r2, right_side"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UserError, match=message):
        CensoredRegression(**settings)


def test_descriptions_ensembles_and_the_score():
    task = make()
    assert task_from_plain(task.describe()) == task
    assert (task.likelihood, make("mae").likelihood) == ("gaussian", "laplace")
    assert task.score({"r2": -9.0}) == -1.0
    assert make(monitor="mae").score({"mae": 1.0}) == pytest.approx(0.75)
    assert make(monitor="right_side").score({"right_side": 0.9}) == pytest.approx(0.9)
    outputs = torch.randn(3, 5, 1)
    torch.testing.assert_close(task.average(outputs), outputs.mean(0))
    spread = task.measure_spread(outputs, task.average(outputs))["spread"]
    np.testing.assert_allclose(spread, 4 * outputs[..., 0].double().numpy().std(0), rtol=1e-6)


def test_added_metrics_see_labels_that_are_no_bounds():
    task = make(metrics=("MeanSquaredError",))
    outputs, targets = draw()
    found = measure(task, outputs, targets)
    assert found["MeanSquaredError"] == pytest.approx(found["rmse"] ** 2, rel=1e-6)
