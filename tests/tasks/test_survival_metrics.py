"""Concordance and Brier scores against torchsurv, and against loops over their definitions."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.tasks.survival_metrics import (
    SurvivalRows,
    compute_brier,
    compute_concordance,
    estimate_censoring,
    integrate_over,
    sum_below,
)

with warnings.catch_warnings():
    # it compiles functions in a way that torch has left behind
    warnings.simplefilter("ignore", DeprecationWarning)
    from torchsurv.metrics.brier_score import BrierScore
    from torchsurv.metrics.cindex import ConcordanceIndex
    from torchsurv.stats.ipcw import get_ipcw


def draw(rows, seed, ties=True):
    rng = np.random.default_rng(seed)
    times = rng.integers(1, 8, rows).astype(float) if ties else rng.exponential(size=rows) + 0.01
    expected = rng.integers(0, 5, rows).astype(float) if ties else rng.normal(size=rows)
    events = rng.random(rows) < 0.6
    return torch.tensor(times), torch.tensor(events), torch.tensor(expected)


def concordance(times, events, expected, weights):
    """All pairs, one after the other."""
    right = pairs = 0.0
    for i in range(len(times)):
        for j in range(len(times)):
            later = times[i] < times[j] or (times[i] == times[j] and not events[j])
            if i != j and events[i] and later:
                weight = float(weights[i] * weights[j])
                tied = float(expected[i] == expected[j])
                pairs += weight
                right += weight * (float(expected[i] < expected[j]) + 0.5 * tied)
    return right / pairs if pairs else float("nan")


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 40), queries=st.integers(0, 9))
def test_sums_below_a_limit_among_the_first(seed, rows, queries):
    rng = np.random.default_rng(seed)
    ranks = torch.tensor(rng.integers(0, rows, rows))
    ends = torch.tensor(rng.integers(0, rows + 1, queries))
    limits = torch.tensor(rng.integers(0, rows + 1, queries))
    weights = torch.tensor(rng.random(rows))
    wanted = [
        float(weights[:end][ranks[:end] < limit].sum())
        for end, limit in zip(ends.tolist(), limits.tolist(), strict=True)
    ]
    assert sum_below(weights, ranks, ends, limits).tolist() == pytest.approx(wanted, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 30), ties=st.booleans())
def test_concordance_against_all_pairs(seed, rows, ties):
    times, events, expected = draw(rows, seed, ties)
    alike = torch.ones(rows, dtype=torch.float64)
    got = compute_concordance(times, events, expected).item()
    assert got == pytest.approx(concordance(times, events, expected, alike), nan_ok=True)
    weights = torch.rand(rows, dtype=torch.float64) + 0.1
    got = compute_concordance(times, events, expected, weights).item()
    assert got == pytest.approx(concordance(times, events, expected, weights), nan_ok=True)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_a_weight_of_2_is_a_row_that_stands_there_twice(seed):
    times, events, _ = draw(20, seed)
    generator = torch.Generator().manual_seed(seed % 99)
    weights = torch.randint(1, 4, (20,), generator=generator).double()
    twice = torch.arange(20).repeat_interleave(weights.long())
    survival = torch.rand(20, 3, dtype=torch.float64)
    at = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(
        compute_brier(times, events, survival, at, weights),
        compute_brier(times[twice], events[twice], survival[twice], at),
        equal_nan=True,
    )


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), rows=st.integers(10, 60))
def test_concordance_against_torchsurv(seed, rows):
    times, events, expected = draw(rows, seed, ties=False)
    events[times.argmin()] = True
    wanted = ConcordanceIndex()(-expected, events, times).item()
    assert compute_concordance(times, events, expected).item() == pytest.approx(wanted, rel=1e-6)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_concordance_does_not_depend_on_order_or_scale(seed):
    times, events, expected = draw(30, seed)
    once = compute_concordance(times, events, expected)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed % 99))
    again = compute_concordance(times[order] * 3, events[order], expected[order].exp())
    torch.testing.assert_close(again, once, equal_nan=True)
    turned = compute_concordance(times, events, -expected)
    torch.testing.assert_close(turned, 1 - once, equal_nan=True)


def test_many_rows_take_no_square_of_memory():
    rng = np.random.default_rng(0)
    times = torch.tensor(rng.exponential(size=50_000))
    expected = times + torch.tensor(rng.normal(size=50_000))
    found = compute_concordance(times, torch.ones(50_000), expected)
    some = compute_concordance(times[:2000], torch.ones(2000), expected[:2000])
    assert found.item() == pytest.approx(some.item(), abs=0.02)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), rows=st.integers(10, 60))
def test_brier_scores_against_torchsurv(seed, rows):
    times, events, _ = draw(rows, seed, ties=False)
    at = torch.linspace(0.1, 0.9, 5, dtype=torch.float64) * times.max()
    survival = torch.rand(rows, 5, dtype=torch.float64)
    weights = get_ipcw(events, times), get_ipcw(events, times, at)
    brier = BrierScore()
    wanted = brier(survival, events, times, at, *weights)
    got = compute_brier(times, events, survival, at)
    known = ~got.isnan()
    torch.testing.assert_close(got[known], wanted[known], rtol=1e-5, atol=1e-7)
    if known.all():
        assert integrate_over(got, at).item() == pytest.approx(brier.integral().item(), rel=1e-5)


def test_the_censoring_curve_by_hand():
    # at time 1 one of 4 leaves; at 2 an event comes before one of the 2 that are left leaves
    times = torch.tensor([1.0, 2, 2, 3], dtype=torch.float64)
    events = torch.tensor([False, True, False, True])
    at = torch.tensor([0.5, 1.0, 2.0, 9.0], dtype=torch.float64)
    curve = estimate_censoring(times, events, at, before=False)
    np.testing.assert_allclose(curve.numpy(), [1, 3 / 4, 3 / 8, 3 / 8])
    curve = estimate_censoring(times, events, at, before=True)
    np.testing.assert_allclose(curve.numpy(), [1, 1, 3 / 4, 3 / 8])


def test_brier_scores_with_ties_by_hand():
    times = torch.tensor([1.0, 2, 2, 3], dtype=torch.float64)
    events = torch.tensor([False, True, False, True])
    survival = torch.tensor([[0.9], [0.2], [0.5], [0.6]], dtype=torch.float64)
    at = torch.tensor([2.0], dtype=torch.float64)
    # the event at 2 weighs 1 / G(2-) = 4 / 3, the row beyond it 1 / G(2) = 8 / 3
    wanted = (0.2**2 * 4 / 3 + (1 - 0.6) ** 2 * 8 / 3) / 4
    assert compute_brier(times, events, survival, at).item() == pytest.approx(wanted)
    later = compute_brier(times, events, survival, torch.tensor([4.0], dtype=torch.float64))
    assert later.isnan().all()


def test_without_censoring_it_is_the_mean_squared_error():
    times = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)
    survival = torch.rand(4, 2, dtype=torch.float64)
    at = torch.tensor([1.5, 3.5], dtype=torch.float64)
    wanted = ((times[:, None] > at).double() - survival).square().mean(0)
    torch.testing.assert_close(compute_brier(times, torch.ones(4), survival, at), wanted)


def test_the_integral_leaves_out_what_is_not_defined():
    at = torch.tensor([1.0, 2.0, 4.0])
    assert integrate_over(torch.tensor([1.0, 3.0, 3.0]), at).item() == pytest.approx(8 / 3)
    assert integrate_over(torch.tensor([1.0, 3.0, float("nan")]), at).item() == 2.0
    assert integrate_over(torch.tensor([1.0, float("nan"), float("nan")]), at).item() == 1.0


def test_rows_are_kept_over_batches():
    rows = SurvivalRows()
    rows.update(torch.zeros(2, 3), torch.zeros(2, 2))
    rows.update(torch.ones(1, 3), torch.ones(1, 2))
    curves, outcomes = rows.compute()
    assert (curves.shape, outcomes.shape) == ((3, 3), (3, 3))
    assert outcomes[:, 2].tolist() == [1, 1, 1]
    assert curves[2].tolist() == [1, 1, 1]
