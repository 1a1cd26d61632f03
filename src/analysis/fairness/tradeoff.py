"""Score against gap: each run's score of a task beside its gap between groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TradeoffRun:
    """A run's place in the picture.

    Attributes:
        label: The method; its runs differ in their seeds alone.
        run: The run folder.
        seed: Its seed.
        score: The value of the metric that counts, over all rows.
        gap: The gap between groups.
    """

    label: str
    run: str
    seed: int
    score: float
    gap: float


@dataclass(frozen=True)
class TradeoffMethod:
    """The mean of a method's runs.

    Attributes:
        label: The method.
        runs: The number of its runs.
        score: Their mean score.
        score_spread: The standard deviation over runs; None of a single one.
        gap: Their mean gap.
        gap_spread: The standard deviation over runs; None of a single one.
    """

    label: str
    runs: int
    score: float
    score_spread: float | None
    gap: float
    gap_spread: float | None


def summarise_runs(runs: Sequence[TradeoffRun]) -> list[TradeoffMethod]:
    """Returns the mean and the spread of each method, in the order of the runs."""
    methods = []
    for label in dict.fromkeys(run.label for run in runs):
        own = [run for run in runs if run.label == label]
        scores = np.array([run.score for run in own])
        gaps = np.array([run.gap for run in own])
        several = len(own) > 1
        methods.append(
            TradeoffMethod(
                label,
                len(own),
                float(scores.mean()),
                float(scores.std(ddof=1)) if several else None,
                float(gaps.mean()),
                float(gaps.std(ddof=1)) if several else None,
            )
        )
    return methods
