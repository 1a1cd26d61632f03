"""The greedy soup, against the recipe of the paper."""

from collections.abc import Sequence
from math import nan

import numpy as np
from hypothesis import given

from src.analysis.merging.soup import choose_ingredients
from tests.analysis.merging.networks import counts, seeds


def reference(points: np.ndarray, goal: np.ndarray) -> list[int]:
    """Recipe 1 of Wortsman et al.: sort by accuracy, then add while it is no worse."""

    def accuracy(chosen: Sequence[int]) -> float:
        return -float(np.linalg.norm(points[list(chosen)].mean(0) - goal))

    soup: list[int] = []
    for one in sorted(range(len(points)), key=lambda k: accuracy([k]), reverse=True):
        if not soup or accuracy([*soup, one]) >= accuracy(soup):
            soup.append(one)
    return soup


@given(seeds, counts)
def test_it_is_the_recipe(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    points, goal = rng.normal(size=(count, 3)), rng.normal(size=3)

    def measure(chosen: Sequence[int]) -> float:
        return -float(np.linalg.norm(points[list(chosen)].mean(0) - goal))

    chosen, best = choose_ingredients(count, measure)
    assert chosen == reference(points, goal)
    assert best == measure(chosen) >= max(measure([k]) for k in range(count))


def test_a_run_without_a_score_is_the_last() -> None:
    scores = {(0,): nan, (1,): 0.5, (2,): 0.7, (2, 1): 0.7, (2, 1, 0): nan}
    assert choose_ingredients(3, lambda chosen: scores[tuple(chosen)]) == ([2, 1], 0.7)
