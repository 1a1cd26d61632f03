"""Quantiles against the pinball loss of scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_pinball_loss

from src.data.kinds import task_from_plain
from src.errors import UserError
from src.tasks import Quantiles
from tests.tasks.measuring import check_batched, check_gradient, check_missing, measure

LEVELS = st.sampled_from([(0.5,), (0.1, 0.5, 0.9), (0.5, 0.75, 0.99), (0.05, 0.25, 0.5, 0.6)])


def make(levels=(0.1, 0.5, 0.9), **settings):
    return Quantiles(levels=levels, mean=10.0, std=4.0, **settings)


def draw(task, rows=30, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    outputs = scale * torch.randn(rows, task.out_features, generator=generator)
    return outputs, torch.randn(rows, generator=generator)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), levels=LEVELS, scale=st.sampled_from([0.1, 3.0, 50.0]))
def test_quantiles_never_cross(seed, levels, scale):
    task = make(levels)
    outputs, _ = draw(task, 9, seed, scale)
    quantiles = task.predict(outputs)
    assert (quantiles.diff(dim=-1) >= 0).all()
    assert torch.equal(quantiles[:, task.middle], outputs[:, task.middle])
    decoded = task.decode(outputs)
    columns = [decoded[f"q{level:g}"] for level in levels]
    assert (np.diff(columns, axis=0) >= 0).all()
    assert decoded[""] == decoded["q0.5"]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), levels=LEVELS, weighted=st.booleans())
def test_losses_and_metrics_against_sklearn(seed, levels, weighted):
    task = make(levels)
    outputs, targets = draw(task, 30, seed)
    weights = torch.rand(30, dtype=torch.float64) + 0.1 if weighted else None
    guess = np.stack([task.decode(outputs)[f"q{level:g}"] for level in levels], -1)
    y = 10 + 4 * targets.double().numpy()

    losses = task.losses(outputs.double(), targets.double())
    for row in range(3):
        own = [
            mean_pinball_loss(y[row : row + 1], guess[row : row + 1, k], alpha=level) / 4
            for k, level in enumerate(levels)
        ]
        assert losses[row].item() == pytest.approx(np.mean(own), rel=1e-6)

    pinball = [
        mean_pinball_loss(y, guess[:, k], alpha=level, sample_weight=weights)
        for k, level in enumerate(levels)
    ]
    inside = (guess[:, 0] <= y) & (y <= guess[:, -1])
    wanted = {
        "pinball": np.mean(pinball),
        "mae": mean_absolute_error(y, guess[:, task.middle], sample_weight=weights),
        f"coverage_{levels[-1] - levels[0]:g}": np.average(inside, weights=weights),
    }
    if len(levels) == 1:
        del wanted["coverage_0"]
    assert measure(task, outputs, targets, weights) == pytest.approx(wanted, rel=1e-6)


def test_the_name_of_the_coverage_is_its_nominal_value():
    assert make().metric_names == ("pinball", "mae", "coverage_0.8")
    assert make((0.025, 0.5, 0.975)).coverage == "coverage_0.95"
    assert make((0.5,)).metric_names == ("pinball", "mae")


def test_gradients_missing_labels_and_alike_tasks():
    task = make()
    outputs, targets = draw(task, 12)
    check_gradient(task, outputs, targets)
    check_missing(task, outputs, targets, torch.arange(12) % 3 == 0)
    other = Quantiles(mean=0.0, std=1.0, monitor="mae", weight=3.0)
    check_batched(task, other, outputs.view(6, 2, 3), targets.view(6, 2))
    assert make((0.2, 0.5)).loss_key() != make((0.3, 0.5)).loss_key()


def test_the_lowest_loss_is_that_of_the_quantiles_of_the_labels():
    rng = np.random.default_rng(0)
    y = rng.exponential(size=201)
    task = Quantiles().fit(y, ["y"])
    targets = task.encode(y)
    best = torch.tensor((np.quantile(y, task.levels) - y.mean()) / y.std())
    outputs = torch.stack(
        [(best[1] - best[0]).expm1().log(), best[1], (best[2] - best[1]).expm1().log()]
    )
    lowest = task.losses(outputs.expand(201, 3), targets).mean()
    for k in range(3):
        for shift in (-0.05, 0.05):
            moved = outputs.clone()
            moved[k] += shift
            assert task.losses(moved.expand(201, 3), targets).mean() > lowest
    coverage = measure(task, outputs.expand(201, 3).float(), targets)["coverage_0.8"]
    assert coverage == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": (0.1, 0.9)}, "lack 0.5"),
        ({"levels": (0.5, 0.1)}, "must increase between 0 and 1"),
        ({"levels": (0.5, 1.0)}, "must increase between 0 and 1"),
        ({"levels": (0.5, 0.5)}, "must increase between 0 and 1"),
        ({"levels": ()}, "must increase between 0 and 1"),
        ({"monitor": "coverage_0.8"}, "none of pinball, mae$"),
        ({"std": 0.0}, "std 0.0 must be above 0"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Quantiles(**settings)


def test_labels_are_standardised():
    task = Quantiles().fit(np.array([1.0, None, 3.0, 5.0], dtype=object), ["y"])
    assert (task.mean, task.std) == (3.0, pytest.approx(np.sqrt(8 / 3)))
    encoded = task.encode(np.array([3.0, np.nan, 5.0]))
    assert task.decode_targets(encoded)[""] == [3.0, None, pytest.approx(5.0, rel=1e-6)]
    with pytest.raises(UserError, match="single value"):
        Quantiles().fit(np.array([2.0, 2.0]), ["y"])
    with pytest.raises(UserError, match="2 columns, where Quantiles has one"):
        Quantiles().fit(np.ones((2, 2)), ["u", "v"])
    with pytest.raises(UserError, match="no label"):
        Quantiles().fit(np.array([np.nan]), ["y"])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), levels=LEVELS)
def test_ensembles_average_quantiles(seed, levels):
    task = make(levels)
    generator = torch.Generator().manual_seed(seed)
    outputs = 3 * torch.randn(3, 5, task.out_features, generator=generator)
    averaged = task.average(outputs)
    each = task.in_units(task.predict(outputs.double())).numpy()
    np.testing.assert_allclose(
        task.in_units(task.predict(averaged)).numpy(), each.mean(0), rtol=1e-5, atol=1e-4
    )
    spread = task.measure_spread(outputs, averaged)
    assert list(spread) == [f"spread_q{level:g}" for level in levels]
    np.testing.assert_allclose(
        spread[f"spread_q{levels[0]:g}"], each[..., 0].std(0), rtol=1e-5, atol=1e-6
    )


def test_descriptions_and_the_score():
    task = make()
    assert task_from_plain(task.describe()) == task
    assert task.likelihood == "laplace"
    assert task.score({"pinball": 1.0}) == pytest.approx(0.75)
    assert task.score({"pinball": 100.0}) == -1.0
    assert task.describe_score() == "1 - pinball / std, at least -1"
    assert make(monitor="mae").score({"mae": 2.0}) == pytest.approx(0.5)


def test_added_metrics_see_the_median():
    task = make(metrics=("MeanSquaredError",))
    outputs, targets = draw(task)
    wanted = 16 * (outputs[:, 1].double() - targets.double()).square().mean().item()
    assert measure(task, outputs, targets)["MeanSquaredError"] == pytest.approx(wanted, rel=1e-6)
