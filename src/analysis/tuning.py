"""How the settings of a row are tuned: the candidates of a grid, and vectors of fixed weights."""

import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from src.analysis.settings import Settings


class Tuner(Protocol):
    """Proposes settings, and hears what they have scored.

    Attributes:
        done: Whether all candidates were proposed, and every score is known.
    """

    @property
    def done(self) -> bool: ...

    def ask(self) -> Settings | None:
        """Returns settings to try next; None while scores are awaited, or at the end."""

    def tell(self, settings: Settings, score: float | None) -> None:
        """Notes the validation score of settings; None where their trial has failed."""


class GridTuner:
    """Proposes every combination of a grid.

    Args:
        space: {flag: values}.
    """

    def __init__(self, space: dict[str, list[object]]) -> None:
        combinations = itertools.product(*space.values())
        self._left = [dict(zip(space, values, strict=True)) for values in combinations]
        self._awaited = len(self._left)

    @property
    def done(self) -> bool:
        """Whether every combination has a score, or has failed."""
        return self._awaited == 0

    def ask(self) -> Settings | None:
        """Returns the next combination; None at the end."""
        return self._left.pop(0) if self._left else None

    def tell(self, settings: Settings, score: float | None) -> None:
        """Counts an answer; a grid does not depend on scores."""
        self._awaited -= 1


def draw_weights(tasks: Sequence[str], count: int, seed: int = 0) -> list[dict[str, float]]:
    """Draws vectors of fixed task weights from the whole simplex, each with a mean of 1.

    w = T x, x ~ Dirichlet(1, ..., 1), as the random search of Xin et al. ("Do current multi-task
    optimization methods in deep learning even help?", NeurIPS 2022) does.

    Args:
        tasks: The T names.
        count: Number of vectors; more of them only add to the end.
        seed: Seed of the draw.

    Returns:
        Weights by task, with four digits.
    """
    rng = np.random.default_rng(seed)
    vectors = []
    for _ in range(count):
        shares = rng.dirichlet(np.ones(len(tasks)))
        # a weight of 0 would leave the task untrained
        weights = [max(round(float(share) * len(tasks), 4), 0.0001) for share in shares]
        vectors.append(dict(zip(tasks, weights, strict=True)))
    return vectors
