"""Checks of attributions: completeness, and deletion curves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from src.rng import make_generator

POINTS = 10  # shares of the features that are deleted, besides none
ORDERS = 3  # random orders that attributions are compared with
SPREAD = 1.96  # standard deviations on each side of a 95 % interval
ORDER = 3  # the stream of random numbers under the seed


@dataclass(frozen=True)
class Completeness:
    """How far the attributions of rows are from adding up.

    The gap of a row is |sum of its attributions - (f(x) - f(baseline))|.

    Attributes:
        mean: The mean gap, as a share of the mean |f(x) - f(baseline)|.
        largest: The largest gap, as a share of the same.
        difference: The mean |f(x) - f(baseline)|.
    """

    mean: float
    largest: float
    difference: float


def measure_completeness(
    attributions: Tensor, at_rows: Tensor, at_baseline: Tensor
) -> Completeness:
    """Measures how far attributions are from adding up to the difference that they explain.

    Args:
        attributions: (N, F).
        at_rows: (N,) The number that is explained.
        at_baseline: (N,) The same number at the baseline.
    """
    difference = (at_rows - at_baseline).double()
    gaps = (attributions.double().sum(1) - difference).abs()
    scale = float(difference.abs().mean())
    # a network that does not read its inputs differs nowhere, and neither do the sums
    share = scale or 1.0
    return Completeness(float(gaps.mean()) / share, float(gaps.max()) / share, scale)


@dataclass(frozen=True)
class Deletion:
    """The score of a task as more and more features of each row are put to the baseline.

    Attributes:
        shares: The share of its features that each row has lost, from 0 to 1.
        attributed: The score where the features with the largest |attributions| went first.
        random: The score where features went in random order, a mean over orders.
        area: The area between the two curves; above 0, attributions name what the model reads.
        low: The lower end of its 95 % interval over rows.
        high: The upper end.
    """

    shares: tuple[float, ...]
    attributed: tuple[float, ...]
    random: tuple[float, ...]
    area: float
    low: float
    high: float


def measure_deletion(
    importance: Tensor,
    real: Tensor,
    run: Callable[[Tensor], Tensor],
    score: Callable[[Tensor, np.ndarray], float],
    samples: Sequence[np.ndarray],
    seed: int,
) -> Deletion:
    """Measures how fast a score falls when features are deleted.

    (Samek et al., "Evaluating the visualization of what a deep neural network has learned", IEEE
    TNNLS 2017; Petsiuk et al., BMVC 2018.)

    Args:
        importance: (N, F) The size of each attribution.
        real: (N, F) Whether the row has the feature.
        run: Positions (N, F) on the path of all rows -> outputs.
        score: (outputs, numbers of rows, which may come several times) -> the score.
        samples: Draws of the rows, for the interval.
        seed: Seed of the random orders.
    """
    features = real.shape[1]
    steps = min(POINTS, features)
    shares = [step / steps for step in range(steps + 1)]
    every = np.arange(len(real))
    orders = [rank_features(importance, real)]
    for order in range(ORDERS):
        generator = make_generator(seed, ORDER, order)
        drawn = torch.rand(real.shape, generator=generator, dtype=torch.float64)
        orders.append(rank_features(drawn, real))

    whole = np.zeros((len(orders), len(shares)))
    drawn_scores = np.zeros((len(orders), len(samples), len(shares)))
    for place, ranks in enumerate(orders):
        for step, share in enumerate(shares):
            gone = ranks < (share * real.sum(1, keepdim=True)).round()
            outputs = run((~gone).double())
            whole[place, step] = score(outputs, every)
            for number, sample in enumerate(samples):
                # each draw of the rows has one of the random orders
                if place in (0, 1 + number % ORDERS):
                    drawn_scores[place, number, step] = score(outputs, sample)

    area = find_area(shares, whole[0], whole[1:].mean(0))
    areas = []
    for number in range(len(samples)):
        others = drawn_scores[1 + number % ORDERS, number]
        areas.append(find_area(shares, drawn_scores[0, number], others))
    known = [value for value in areas if np.isfinite(value)]
    half = SPREAD * float(np.std(known, ddof=1)) if len(known) > 1 else float("nan")
    return Deletion(
        tuple(shares),
        tuple(whole[0].tolist()),
        tuple(whole[1:].mean(0).tolist()),
        area,
        area - half,
        area + half,
    )


def rank_features(importance: Tensor, real: Tensor) -> Tensor:
    """Returns the rank (N, F) of each feature in its row, the largest first; others come last."""
    values = importance.double().masked_fill(~real, -1)
    order = values.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)


def find_area(shares: Sequence[float], attributed: np.ndarray, random: np.ndarray) -> float:
    """Returns the area between two curves, by the trapezoidal rule."""
    return float(np.trapezoid(random - attributed, shares))
