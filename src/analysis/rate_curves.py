"""Reads learning rates from the losses of a range test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH = 3.0  # steps: the standard deviation of the kernel that smooths losses
BEGUN = 0.1  # of the whole fall: by then a loss has begun to fall
NOISE = 2.0  # standard deviations: noise alone, once smoothed, comes down by less
FAR = 10.0  # times: so far is a rate from another that a person should know


@dataclass(frozen=True)
class RateCurve:
    """A loss against the learning rate.

    Attributes:
        rates: The rates, rising.
        losses: The smoothed loss that each rate has led to.
        suggested: The rate at which the loss falls fastest; None where it does not fall.
        falls_from: The rate at which the loss has begun to fall; None where it does not.
        falls_to: The rate of the least loss; None where it does not fall.
    """

    rates: np.ndarray
    losses: np.ndarray
    suggested: float | None = None
    falls_from: float | None = None
    falls_to: float | None = None


def read_curve(rates: np.ndarray, losses: Sequence[float]) -> RateCurve:
    """Reads a curve: where a loss begins to fall, falls fastest, and is least.

    A loss falls where it comes down by more than its noise could, ``NOISE`` standard deviations.

    Args:
        rates: The rates of all steps, in equal steps of their logarithm.
        losses: The loss at the start and after each rate; fewer than rates where it has diverged.
    """
    raw = np.asarray(losses, dtype=float)
    if len(raw) < 3:
        return RateCurve(rates[: len(raw)], raw)
    smooth = smooth_losses(raw)
    reached = rates[: len(raw) - 1]
    least = int(smooth.argmin())
    fall = smooth[0] - smooth[least]
    curve = RateCurve(reached, smooth[1:])
    if least == 0 or not fall > NOISE * estimate_noise(raw):
        return curve

    slopes = np.diff(smooth)[:least]
    begun = int((smooth < smooth[0] - BEGUN * fall).argmax())
    return RateCurve(
        reached,
        smooth[1:],
        suggested=float(reached[slopes.argmin()]),
        falls_from=float(reached[begun - 1]),
        falls_to=float(reached[least - 1]),
    )


def smooth_losses(losses: np.ndarray) -> np.ndarray:
    """Returns losses averaged with their neighbours on both sides, by a Gaussian kernel."""
    places = np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, None] - places) / WIDTH) ** 2)
    averages: np.ndarray = weights @ losses / weights.sum(1)
    return averages


def estimate_noise(losses: np.ndarray) -> float:
    """Returns the standard deviation of losses around their course.

    It is taken from the median size of differences between neighbours, in which the course hardly
    counts: of normal numbers, 0.6745 x sqrt(2) standard deviations.
    """
    return float(np.median(np.abs(np.diff(losses))) / (0.6745 * np.sqrt(2)))


@dataclass(frozen=True)
class Suggestion:
    """The rate that several curves of one part suggest.

    Attributes:
        rate: The median; None where most curves do not fall.
        low: The least rate that a curve suggests.
        high: The largest one.
        falls_from: The median of the rates at which losses begin to fall.
        falls_to: The median of the rates of the least losses.
    """

    rate: float | None
    low: float | None = None
    high: float | None = None
    falls_from: float | None = None
    falls_to: float | None = None


def combine_curves(curves: Sequence[RateCurve]) -> Suggestion:
    """Returns the medians over seeds, of logarithms of rates."""
    falling = [curve for curve in curves if curve.suggested is not None]
    if 2 * len(falling) <= len(curves):
        return Suggestion(None)
    rates = [curve.suggested for curve in falling if curve.suggested is not None]
    return Suggestion(
        take_median(rates),
        min(rates),
        max(rates),
        take_median([curve.falls_from for curve in falling if curve.falls_from is not None]),
        take_median([curve.falls_to for curve in falling if curve.falls_to is not None]),
    )


def take_median(rates: Sequence[float]) -> float:
    """Returns the median of rates on their logarithmic scale."""
    return float(np.exp(np.median(np.log(rates))))


def judge_rate(configured: float, found: Suggestion) -> str:
    """Says in words how a configured rate lies to a suggestion; nothing where it is near."""
    if found.rate is None or found.falls_from is None or found.falls_to is None:
        return "no rate lowers the loss"
    if configured > found.falls_to:
        return f"too high: the loss rises above {found.falls_to:.2g}"
    if configured < found.falls_from / FAR:
        return f"too low: the loss hardly falls below {found.falls_from:.2g}"
    ratio = configured / found.rate
    if ratio >= FAR or ratio <= 1 / FAR:
        word = "above" if ratio > 1 else "below"
        return f"{max(ratio, 1 / ratio):.0f} times {word} the suggestion"
    return ""
