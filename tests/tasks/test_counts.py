"""Counts against scipy's distributions and scikit-learn's deviance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nbinom, poisson
from sklearn.metrics import d2_tweedie_score, mean_absolute_error, mean_poisson_deviance

from src.data.kinds import task_from_plain
from src.errors import UserError
from src.tasks import BadLabel, Counts
from src.tasks.counts import SMALLEST
from tests.tasks.measuring import check_batched, check_gradient, check_missing, measure

DISTRIBUTIONS = ("poisson", "negative_binomial")


def make(distribution="poisson", offset=None, **settings):
    return Counts(distribution=distribution, offset=offset, rate=0.5, mean=2.0, **settings)


def draw(task, rows=20, seed=0, most=30):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most, rows).astype(float)
    offsets = rng.uniform(0.1, 20, rows)
    values = counts if task.offset is None else np.stack([counts, offsets], -1)
    outputs = torch.tensor(rng.normal(size=(rows, task.out_features)), dtype=torch.float32)
    exposures = np.ones(rows) if task.offset is None else offsets
    return outputs, task.encode(values), counts, exposures


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    distribution=st.sampled_from(DISTRIBUTIONS),
    offset=st.sampled_from([None, "days"]),
    most=st.sampled_from([3, 1000]),
)
def test_losses_are_the_negative_log_likelihood_of_scipy(seed, distribution, offset, most):
    task = make(distribution, offset)
    outputs, targets, counts, exposures = draw(task, seed=seed, most=most)
    mean = np.exp(outputs[:, 0].double().numpy()) * 0.5 * exposures
    if distribution == "poisson":
        wanted = -poisson.logpmf(counts, mean)
    else:
        a = np.log1p(np.exp(outputs[:, 1].double().numpy())) + SMALLEST
        wanted = -nbinom.logpmf(counts, 1 / a, 1 / (1 + a * mean))
    losses = task.losses(outputs, targets)
    assert losses.shape == targets.shape
    np.testing.assert_allclose(losses[:, 0].numpy(), wanted, rtol=2e-5, atol=1e-5)
    assert torch.equal(losses[:, 0], losses[:, 1])


def test_without_dispersion_the_two_distributions_are_one():
    outputs, targets, *_ = draw(make())
    small = torch.cat([outputs, torch.full_like(outputs, -60.0)], -1)
    torch.testing.assert_close(
        make("negative_binomial").losses(small, targets),
        make().losses(outputs, targets),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_gradients_missing_labels_and_alike_tasks(distribution):
    task = make(distribution)
    outputs, targets, *_ = draw(task, 12)
    check_gradient(task, outputs, targets)
    check_missing(task, outputs, targets, torch.arange(12) % 3 == 0)
    other = Counts(distribution=distribution, offset="hours", rate=7.0, mean=90.0, monitor="mae")
    check_batched(task, other, outputs.view(6, 2, -1), targets.view(6, 2, 2))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), weighted=st.booleans())
def test_metrics_against_sklearn(seed, weighted):
    task = make()
    outputs, targets, counts, exposures = draw(task, 30, seed)
    weights = torch.rand(30, dtype=torch.float64) + 0.1 if weighted else None
    guess = np.exp(outputs[:, 0].double().numpy()) * 0.5 * exposures
    got = measure(task, outputs, targets, weights)
    assert got == pytest.approx(
        {
            "poisson_deviance": mean_poisson_deviance(counts, guess, sample_weight=weights),
            "mae": mean_absolute_error(counts, guess, sample_weight=weights),
            "d2": d2_tweedie_score(counts, guess, power=1, sample_weight=weights),
        },
        rel=1e-5,
    )


def test_the_best_constant_rate_explains_nothing():
    task = make("poisson", "days")
    _, targets, counts, exposures = draw(task, 30)
    rate = counts.sum() / exposures.sum()
    constant = torch.full((30, 1), float(np.log(rate / 0.5)))
    assert measure(task, constant, targets)["d2"] == pytest.approx(0, abs=1e-6)
    for shift in (-0.1, 0.1):
        assert measure(task, constant + shift, targets)["d2"] < 0
    expected = rate * exposures
    deviance = mean_poisson_deviance(counts, expected)
    assert measure(task, constant, targets)["poisson_deviance"] == pytest.approx(deviance, rel=1e-5)


def test_metrics_that_labels_do_not_define():
    task = make()
    nothing = measure(task, torch.zeros(3, 1), torch.full((3, 2), float("nan")))
    assert np.isnan(list(nothing.values())).all()
    zeros = measure(task, torch.zeros(3, 1), task.encode(np.zeros(3)))
    assert np.isnan(zeros["d2"])
    assert zeros["mae"] == pytest.approx(0.5)


def test_fit_learns_the_rate_per_unit_of_the_offset():
    values = np.array([[4, 2.0], [0, 2.0], [None, 5.0], [2, None], [5, 1.0]], dtype=object)
    task = Counts(offset="days").fit(values, ["visits", "days"])
    assert (task.rate, task.mean) == (9 / 5, 3.0)
    targets = task.encode(values)
    np.testing.assert_allclose(targets[0].numpy(), [4, 3.6], rtol=1e-6)
    assert targets.isnan().any(1).tolist() == targets.isnan().all(1).tolist()
    assert targets.isnan().all(1).tolist() == [False, False, True, True, False]
    assert task.decode_targets(targets)[""] == [4, 0, None, None, 5]
    assert task.decode_targets(targets)["days"][4] == pytest.approx(1.0)
    assert Counts(rate=2.0, mean=3.0).fit(np.array([0.0, 0.0]), ["y"]).rate == 2.0


@pytest.mark.parametrize(
    ("values", "row", "message"),
    [
        ([1, 2, -1], 2, "holds -1, where a count"),
        ([1, 2.5], 1, "holds 2.5, where a count"),
        ([1, "many"], 1, "'many' where a number"),
    ],
)
def test_labels_that_are_no_counts(values, row, message):
    with pytest.raises(BadLabel, match=message) as caught:
        make().encode(np.array(values, dtype=object))
    assert caught.value.row == row


def test_offsets_that_are_none():
    with pytest.raises(BadLabel, match=r"the offset 0 \('days'\), which must be above 0") as caught:
        make(offset="days").encode(np.array([[1, 2.0], [1, 0.0]]))
    assert caught.value.row == 1
    with pytest.raises(UserError, match="2 columns, where 1 is right; the column of an exposure"):
        Counts().fit(np.array([[1, 2.0]]), ["y", "days"])
    with pytest.raises(UserError, match="0 in all rows"):
        Counts().fit(np.zeros(3), ["y"])
    with pytest.raises(UserError, match="no row with a label and its offset 'days'"):
        Counts(offset="days").fit(np.array([[1, None], [None, 2]], dtype=object), ["y", "days"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distribution": "gamma"}, "none of poisson, negative_binomial"),
        ({"rate": 0.0}, "rate 0.0 must be above 0"),
        ({"monitor": "r2"}, "none of poisson_deviance, mae, d2"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Counts(**settings)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), distribution=st.sampled_from(DISTRIBUTIONS))
def test_ensembles_average_rates(seed, distribution):
    task = make(distribution)
    generator = torch.Generator().manual_seed(seed)
    outputs = 2 * torch.randn(3, 5, task.out_features, generator=generator)
    averaged = task.average(outputs)
    each = task.predict(outputs).numpy()
    np.testing.assert_allclose(task.predict(averaged).numpy(), each.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        task.measure_spread(outputs, averaged)["spread"], each.std(0), rtol=1e-9
    )
    if distribution == "negative_binomial":
        alone = [task.decode(one)["dispersion"] for one in outputs]
        np.testing.assert_allclose(
            task.decode(averaged)["dispersion"], np.mean(alone, 0), rtol=1e-5
        )


def test_people_read_rates():
    task = make("poisson", "days")
    assert task.decode(torch.tensor([[0.0], [1.0]])) == {"": pytest.approx([0.5, 0.5 * np.e])}
    assert task_from_plain(task.describe()) == task
    assert task.likelihood == "categorical"


def test_the_score_is_bounded():
    values = {"d2": -7.0, "poisson_deviance": 3.0, "mae": 0.5}
    assert make().score(values) == -1.0
    assert make(monitor="poisson_deviance").score({**values, "d2": 0.4}) == pytest.approx(0.4)
    assert make(monitor="mae").score(values) == pytest.approx(1 - 0.5 / 2)
    assert np.isnan(make().score({**values, "d2": float("nan")}))
    assert make().describe_score() == "D2, at least -1"
    assert make(monitor="mae").describe_score() == "1 - MAE / mean count, at least -1"


def test_added_metrics_see_expected_counts():
    task = make("poisson", "days", metrics=("MeanSquaredError",))
    outputs, targets, counts, exposures = draw(task)
    guess = np.exp(outputs[:, 0].double().numpy()) * 0.5 * exposures
    wanted = ((guess - counts) ** 2).mean()
    assert measure(task, outputs, targets)["MeanSquaredError"] == pytest.approx(wanted, rel=1e-5)
