"""The ladder of a run's scores: a rung for each task, corruption and severity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Rung:
    """The score of a task at one severity of a corruption, or under an attack.

    Attributes:
        task: The task.
        corruption: The name of the corruption; "attack" for the worst case.
        severity: From 0, for the rows as they are, to 5; of an attack its place among the bounds.
        amount: How much of the corruption that is, in its own unit.
        score: The score, higher is better.
        low: The lower end of its 95 % bootstrap interval over rows.
        high: The upper end.
        fall: How much lower the score is than on the rows as they are.
        fall_low: The lower end of its 95 % interval; both scores see the same draws of rows.
        fall_high: The upper end.
    """

    task: str
    corruption: str
    severity: int
    amount: float
    score: float
    low: float
    high: float
    fall: float
    fall_low: float
    fall_high: float


def tabulate_ladder(rungs: Sequence[Rung]) -> "DataFrame":
    """Returns a row for each rung."""
    from pandas import DataFrame

    return DataFrame([vars(rung) for rung in rungs])
