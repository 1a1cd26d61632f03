"""The importance of inputs to a trained model: how much a score falls without a column."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame

SPREAD = 1.96  # standard deviations on each side of a 95 % interval


@dataclass(frozen=True)
class Importance:
    """How much the score of a task falls without a column.

    Attributes:
        task: The task.
        column: The column.
        method: permutation or constant.
        score: The score with all columns, on all rows.
        drop: The fall, on all rows; a mean over repeats.
        low: The lower end of its 95 % interval.
        high: The upper end.
    """

    task: str
    column: str
    method: str
    score: float
    drop: float
    low: float
    high: float


def summarise_drops(
    whole: Sequence[float], resampled: Sequence[float]
) -> tuple[float, float, float]:
    """Returns the mean fall of a score, with its normal bootstrap interval of 95 %.

    Args:
        whole: The fall on all rows, one for each repeat.
        resampled: The fall on rows drawn with replacement, one for each repeat: they vary with the
            rows, and with the permutation where each repeat has its own.

    Returns:
        The mean, and the mean plus and minus 1.96 standard deviations of the resampled falls.
    """
    drop = float(np.mean(whole))
    known = [value for value in resampled if np.isfinite(value)]
    if len(known) < 2:
        return drop, float("nan"), float("nan")
    half = SPREAD * float(np.std(known, ddof=1))
    return drop, drop - half, drop + half


def sort_importance(found: Sequence[Importance]) -> list[Importance]:
    """Returns importances by task, in the order of tasks, then by method, the largest first."""
    tasks = list(dict.fromkeys(one.task for one in found))
    methods = list(dict.fromkeys(one.method for one in found))
    return sorted(
        found, key=lambda one: (tasks.index(one.task), methods.index(one.method), -one.drop)
    )


def tabulate_importance(found: Sequence[Importance]) -> "DataFrame":
    """Returns a row for each task, column and method, the most important of a task first."""
    from pandas import DataFrame

    return DataFrame([vars(one) for one in sort_importance(found)])
