"""Rates that are read from curves: on curves whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.analysis.rate_curves import (
    RateCurve,
    Suggestion,
    combine_curves,
    judge_rate,
    read_curve,
    smooth_losses,
    take_median,
)

RATES = np.geomspace(1e-6, 1.0, 121)  # 20 steps a decade


def valley(steepest: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Losses that fall from 1 to 0 around a rate, and rise two decades above it."""
    x = np.log10(RATES)
    losses = 1 / (1 + np.exp(6 * (x - np.log10(steepest))))
    losses = losses + np.exp(4 * (x - np.log10(steepest) - 2))
    drawn = np.random.default_rng(seed).normal(size=len(x))
    return np.concatenate([[1.0], losses + noise * drawn])


@settings(deadline=None)
@given(st.floats(1e-4, 1e-2))
def test_the_rate_of_the_steepest_descent(steepest: float) -> None:
    curve = read_curve(RATES, list(valley(steepest)))
    assert curve.suggested == pytest.approx(steepest, rel=0.2)
    assert curve.falls_from is not None
    assert curve.falls_to is not None
    # 10 % of the fall lie log(9) / 6 of a decade below; the least is between fall and rise
    assert curve.falls_from == pytest.approx(steepest * 10 ** (-np.log(9) / 6), rel=0.35)
    assert 2 * steepest < curve.falls_to < 100 * steepest


def test_noise_moves_it_little() -> None:
    found = [read_curve(RATES, list(valley(1e-3, 0.05, seed))) for seed in range(5)]
    suggestion = combine_curves(found)
    assert suggestion.rate is not None
    assert suggestion.rate == pytest.approx(1e-3, rel=0.5)
    assert suggestion.low is not None
    assert suggestion.high is not None
    assert suggestion.low <= suggestion.rate <= suggestion.high


@pytest.mark.parametrize("seed", range(10))
def test_noise_alone_suggests_nothing(seed: int) -> None:
    losses = 1 + 0.1 * np.random.default_rng(seed).normal(size=122)
    curves = [read_curve(RATES, list(losses))]
    assert combine_curves(curves).rate is None


def test_a_loss_that_only_rises_suggests_nothing() -> None:
    curve = read_curve(RATES, list(np.linspace(1.0, 3.0, 122)))
    assert curve.suggested is None


def test_a_curve_that_ends_early_is_read_as_far_as_it_goes() -> None:
    losses = valley(1e-4)[:80]
    curve = read_curve(RATES, list(losses))
    assert len(curve.rates) == len(curve.losses) == 79
    assert curve.suggested == pytest.approx(1e-4, rel=0.2)
    assert read_curve(RATES, [1.0, 5.0]).suggested is None


def test_smoothing_keeps_a_line_within() -> None:
    line = np.linspace(0.0, 1.0, 50)
    np.testing.assert_allclose(smooth_losses(line)[12:-12], line[12:-12], atol=1e-4)


def test_medians_are_of_logarithms() -> None:
    assert take_median([1e-4, 1e-2]) == pytest.approx(1e-3)


def test_most_curves_must_fall() -> None:
    falls = RateCurve(RATES, RATES, 1e-3, 1e-4, 1e-2)
    flat = RateCurve(RATES, RATES)
    assert combine_curves([falls, flat, flat]) == Suggestion(None)
    assert combine_curves([falls, falls, flat]).rate == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("configured", "says"),
    [
        (1e-3, ""),
        (5e-3, ""),
        (0.5, "too high: the loss rises above 0.1"),
        (5e-6, "too low: the loss hardly falls below 0.0001"),
        (5e-5, "20 times below the suggestion"),
        (0.05, "50 times above the suggestion"),
    ],
)
def test_a_configured_rate_in_words(configured: float, says: str) -> None:
    assert judge_rate(configured, Suggestion(1e-3, 1e-3, 1e-3, 1e-4, 0.1)) == says
    assert judge_rate(configured, Suggestion(None)) == "no rate lowers the loss"
