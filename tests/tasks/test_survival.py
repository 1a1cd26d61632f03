"""Survival against the likelihood of its intervals, row by row in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.kinds import task_from_plain
from src.errors import UserError
from src.tasks import BadLabel, Survival
from src.tasks.survival_metrics import compute_brier, compute_concordance, integrate_over
from tests.tasks.measuring import check_batched, check_gradient, check_missing, measure

NAN = float("nan")
TASK = Survival(ends=(1.0, 2.0, 4.0), names=("days", "died"))


def draw(rows=20, seed=0):
    rng = np.random.default_rng(seed)
    values = np.stack([rng.uniform(0, 5, rows), rng.integers(0, 2, rows)], -1)
    outputs = torch.tensor(rng.normal(size=(rows, 3)), dtype=torch.float32)
    return outputs, TASK.encode(values), values


def likelihood(hazards, time, event, ends=(1.0, 2.0, 4.0)):
    """Of one row: it survives intervals, and has its event in the next one."""
    found = 1.0
    start = 0.0
    for hazard, end in zip(hazards, ends, strict=True):
        if event and time <= end:
            return found * hazard
        if not event and time < (start + end) / 2:
            return found
        found *= 1 - hazard
        start = end
    return found


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_losses_against_the_likelihood(seed):
    outputs, targets, values = draw(9, seed)
    hazards = outputs.double().sigmoid().numpy()
    wanted = [-np.log(likelihood(h, *row)) for h, row in zip(hazards, values, strict=True)]
    losses = TASK.losses(outputs.double(), targets.double())
    assert losses.shape == targets.shape
    np.testing.assert_allclose(losses[:, 0].numpy(), wanted, rtol=1e-6, atol=1e-12)
    assert (losses == losses[:, :1]).all()


def test_ends_belong_to_the_interval_before_them():
    values = np.array([[1.0, 1], [1.001, 1], [4.0, 1], [9.0, 1], [0.0, 1]])
    assert TASK.encode(values)[:, 2].tolist() == [0, 1, 2, 3, 0]
    # half of an interval is enough for a row that is censored
    values = np.array([[0.4, 0], [0.5, 0], [1.0, 0], [2.9, 0], [3.0, 0], [9.0, 0]])
    assert TASK.encode(values)[:, 2].tolist() == [0, 1, 1, 2, 3, 3]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_the_probabilities_of_all_ends_of_a_row_sum_to_1(seed):
    outputs, *_ = draw(5, seed)
    events = np.array([[0.5, 1], [1.5, 1], [3.0, 1], [9.0, 1]])
    targets = TASK.encode(events)
    for row in outputs.double():
        losses = TASK.losses(row.expand(4, 3), targets.double())[:, 0]
        assert (-losses).exp().sum().item() == pytest.approx(1, rel=1e-9)


def test_gradients_missing_labels_and_alike_tasks():
    outputs, targets, _ = draw(12)
    check_gradient(TASK, outputs, targets)
    check_missing(TASK, outputs, targets, torch.arange(12) % 3 == 0)
    other = Survival(ends=(7.0, 8.0, 9.5), names=("t", "e"), monitor="integrated_brier")
    check_batched(TASK, other, outputs.view(6, 2, 3), targets.view(6, 2, 3))
    assert Survival(ends=(1.0, 2.0)).loss_key() != TASK.loss_key()


def test_metrics_of_all_rows_whatever_the_batches():
    outputs, targets, values = draw(40, seed=3)
    curves = TASK.predict(outputs)
    times = torch.tensor(values[:, 0]).float().double()
    events = torch.tensor(values[:, 1])
    at = torch.tensor(TASK.ends, dtype=torch.float64)
    wanted = {
        "concordance": compute_concordance(times, events, TASK.expect_time(curves)).item(),
        "integrated_brier": integrate_over(compute_brier(times, events, curves, at), at).item(),
    }
    for size in (1, 7, 40):
        assert measure(TASK, outputs, targets, size=size) == pytest.approx(wanted, rel=1e-6)
    weights = torch.rand(40, dtype=torch.float64) + 0.1
    weighted = compute_concordance(times, events, TASK.expect_time(curves), weights).item()
    assert measure(TASK, outputs, targets, weights)["concordance"] == pytest.approx(weighted)
    few = torch.arange(40).double() % 2
    some = measure(TASK, outputs[1::2], targets[1::2])
    assert measure(TASK, outputs, targets, few) == pytest.approx(some)
    assert np.isnan(list(measure(TASK, outputs, targets, few * 0).values())).all()
    nothing = measure(TASK, outputs, torch.full_like(targets, NAN))
    assert np.isnan(list(nothing.values())).all()


def test_a_network_that_knows_has_the_best_metrics():
    times = np.array([0.5, 1.5, 3.0, 0.7, 3.9])
    targets = TASK.encode(np.stack([times, np.ones(5)], -1))
    outputs = torch.full((5, 3), -20.0)
    outputs[torch.arange(5), targets[:, 2].long()] = 20.0
    found = measure(TASK, outputs, targets)
    assert found["integrated_brier"] == pytest.approx(0, abs=1e-6)
    # rows of one interval are predicted alike, which counts as half: 2 of 10 pairs
    assert found["concordance"] == pytest.approx(0.9)


def test_fit_cuts_at_quantiles_of_the_events():
    values = np.array(
        [[t, True] for t in range(1, 9)] + [[100, False], [None, True], [5, None]], dtype=object
    )
    task = Survival(intervals=4).fit(values, ["days", "died"])
    assert task.ends == (2.0, 4.0, 6.0, 8.0)
    assert task.names == ("days", "died")
    counts = torch.bincount(task.encode(values[:8])[:, 2].long())
    assert counts.tolist() == [2, 2, 2, 2]
    few = Survival(intervals=9).fit(np.array([[1, 1], [1, 1], [3, 1], [0, 1]]), ["t", "e"])
    assert few.ends == (1.0, 3.0)
    by_hand = Survival(ends=(5.0, 10.0)).fit(values, ["t", "e"])
    assert (by_hand.ends, by_hand.out_features) == ((5.0, 10.0), 2)
    with pytest.raises(UserError, match="no event after time 0"):
        Survival().fit(np.array([[1, 0], [2, 0]]), ["t", "e"])
    with pytest.raises(UserError, match="list of two columns"):
        Survival().fit(np.ones(3), ["t"])


@pytest.mark.parametrize("words", [(1, 0), ("1", "0"), (True, False), ("Yes", "no"), (1.0, 0.0)])
def test_events_as_people_write_them(words):
    values = np.array(
        [[1.5, words[0]], [1.5, words[1]], [2.0, None], [None, words[0]]], dtype=object
    )
    targets = TASK.encode(values)
    assert targets[:2, 1].tolist() == [1, 0]
    assert targets.isnan().all(1).tolist() == [False, False, True, True]
    assert targets.isnan().any(1).tolist() == [False, False, True, True]
    assert TASK.decode_targets(targets) == {
        "days": [1.5, 1.5, None, None],
        "died": [1, 0, None, None],
    }


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([-2.0, 1], "the time -2, which must be at least 0"),
        (["soon", 1], "'soon' where a number"),
        ([2.0, "perhaps"], "the event 'perhaps', where 1 or 0, True or False, yes or no"),
        ([2.0, 2], "the event '2'"),
    ],
)
def test_labels_that_are_none(label, message):
    with pytest.raises(BadLabel, match=message) as caught:
        TASK.encode(np.array([[1.0, 1], label], dtype=object))
    assert caught.value.row == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"intervals": 0}, "intervals is 0"),
        ({"ends": (2.0, 1.0)}, "ends 2, 1 must increase from 0"),
        ({"ends": (0.0, 1.0)}, "must increase from 0"),
        ({"monitor": "r2"}, "none of concordance, integrated_brier"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Survival(**settings)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.5, 5.0]))
def test_ensembles_average_survival(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    outputs = scale * torch.randn(3, 6, 3, generator=generator)
    averaged = TASK.average(outputs)
    each = TASK.predict(outputs)
    np.testing.assert_allclose(
        TASK.predict(averaged).numpy(), each.mean(0).numpy(), rtol=1e-4, atol=1e-7
    )
    times = TASK.expect_time(each).numpy()
    np.testing.assert_allclose(
        TASK.measure_spread(outputs, averaged)["spread"], times.std(0), rtol=1e-9, atol=1e-12
    )


def test_people_read_times_and_curves():
    decoded = TASK.decode(torch.tensor([[0.0, 0.0, 0.0], [-99.0, -99.0, -99.0]]))
    assert list(decoded) == ["", "survival_1", "survival_2", "survival_4"]
    assert [decoded[f"survival_{end}"][0] for end in (1, 2, 4)] == pytest.approx([0.5, 0.25, 0.125])
    # the area below the curve from 1 over 0.5 and 0.25 to 0.125
    assert decoded[""] == pytest.approx([0.75 + 0.375 + 2 * 0.1875, 4.0])
    assert task_from_plain(TASK.describe()) == TASK
    assert TASK.likelihood == "categorical"
    assert TASK.score({"concordance": 0.7}) == pytest.approx(0.7)
    by_brier = Survival(monitor="integrated_brier")
    assert by_brier.score({"integrated_brier": 0.2}) == pytest.approx(-0.2)


def test_added_metrics_see_the_times_of_events():
    task = Survival(ends=TASK.ends, metrics=("MeanAbsoluteError",))
    outputs, targets, values = draw()
    event = values[:, 1] == 1
    expected = task.expect_time(task.predict(outputs)).numpy()
    wanted = np.abs(expected - values[:, 0])[event].mean()
    assert measure(task, outputs, targets)["MeanAbsoluteError"] == pytest.approx(wanted, rel=1e-5)
