"""The affinities of a training or of several: means, intervals, and the record affinity.json.

Entry (i, j) of a table says how much a step on task i alone takes from the loss of task j, as a
share of it: the row helps the column where it is above 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np

from src.analysis.statistics import estimate_mean
from src.files.typed import read_json

NAME = "affinity.json"
BLOCKS = 10  # consecutive parts of a training, whose means an interval is made of

Matrix = list[list[float | None]]


class TableRecord(TypedDict):
    """The affinities of one kind.

    Attributes:
        mean: (T, T); row helps column. None where a pair was never measured.
        half_width: (T, T) Half of the 95 % interval; None where there is none.
    """

    mean: Matrix
    half_width: Matrix


class PartitionRecord(TypedDict):
    """The best partition of the tasks.

    Attributes:
        networks: The largest number of networks that was allowed.
        groups: The groups.
        value: The sum over tasks of the mean affinity from the others of their group.
        together: The value of all tasks in one group.
        exact: Whether no partition has a larger value.
        flags: The flags that train it.
    """

    networks: int
    groups: list[list[str]]
    value: float
    together: float
    exact: bool
    flags: list[str]


class AffinityRecord(TypedDict):
    """The content of affinity.json.

    Attributes:
        tasks: The order of rows and columns.
        reads: How a table is read.
        intervals: What the intervals are made of.
        runs: The run folders of the trainings that were measured.
        seeds: Their seeds.
        measured_steps: The number of steps at which each was measured.
        lookahead: The affinities of a step that is tried and taken back.
        first_order: Their first-order terms.
        partition: The best partition; None where some pair was never measured.
    """

    tasks: list[str]
    reads: str
    intervals: str
    runs: list[str]
    seeds: list[int]
    measured_steps: list[int]
    lookahead: TableRecord
    first_order: TableRecord
    partition: PartitionRecord | None


@dataclass(frozen=True)
class Affinities:
    """Affinities of one kind, averaged.

    Attributes:
        mean_TT: The means; NaN where a pair was never measured.
        half_TT: Half of the 95 % intervals; NaN where there is none.
    """

    mean_TT: np.ndarray
    half_TT: np.ndarray

    def record(self) -> TableRecord:
        """Returns the affinities as plain values."""
        return {
            "mean": cast(Matrix, self.mean_TT.tolist()),
            "half_width": cast(Matrix, self.half_TT.tolist()),
        }


def average_steps(values_MTT: np.ndarray) -> Affinities:
    """Averages the affinities that one training has shown at M steps.

    Neighbouring steps are alike. So the t-interval is that of the means of up to 10 consecutive
    blocks of steps. What changes along the training makes it wider.

    Args:
        values_MTT: (M, T, T); NaN where a pair was not measured at a step.
    """
    blocks = np.array_split(values_MTT, min(BLOCKS, len(values_MTT)))
    return average_samples([mean_of_defined(block) for block in blocks])


def average_samples(samples: Sequence[np.ndarray]) -> Affinities:
    """Averages affinities (T, T) of blocks or of seeds, with the t-interval of each pair."""
    stacked = np.stack(list(samples))
    mean_TT = np.full(stacked.shape[1:], np.nan)
    half_TT = np.full(stacked.shape[1:], np.nan)
    for i, j in np.ndindex(*mean_TT.shape):
        estimate = estimate_mean(stacked[:, i, j])
        mean_TT[i, j] = estimate.mean
        half_TT[i, j] = (estimate.high - estimate.low) / 2
    return Affinities(mean_TT, half_TT)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the first dimension of the values that are no NaN; NaN of none."""
    known = np.isfinite(values)
    counts = known.sum(0)
    sums = np.where(known, values, 0.0).sum(0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def read_affinities(path: Path) -> AffinityRecord:
    """Reads a file that the command has written.

    Raises:
        UserError: It is damaged.
    """
    return cast(AffinityRecord, read_json(path, AffinityRecord))


def read_mean(table: TableRecord) -> np.ndarray:
    """Returns the means (T, T) of a table, with NaN where there are none."""
    return np.array(table["mean"], dtype=float)
