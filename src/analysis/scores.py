"""The test values of a study as one array, and what its tables are computed from.

R rows, P replicates and C columns, a column being a metric of a task; NaN where there is no value.
The improvement of a value x over another row's x_0, in percent, is

    100 sign (x - x_0) / |m|

where sign is -1 for a metric that is better when lower, and m is the mean of the single-task row
over all its replicates (of the baseline where there is no single-task row). So the mean over
replicates is the delta of the mean values, as papers report it (Maninis et al. 2019, arXiv
1904.08918).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from src.analysis.record import StudyRecord
from src.analysis.results import StudyResults, Value
from src.analysis.statistics import Estimate, Floats, estimate_mean

Convention = Literal["metrics", "tasks"]


@dataclass(frozen=True)
class Scores:
    """Test values of all rows.

    Attributes:
        rows: Names of the R rows.
        references: Which of them are no networks; their values do not depend on the seed.
        replicates: (seed, fold) of each of the P replicates.
        columns: (task, metric) of each of the C columns.
        signs: (C,) 1 where more is better, -1 where less is.
        values: (R, P, C).
        repeats: (R, P, C) whether a value is of a run that already counts for another seed.
        overlap: n_test/n_train of folds, see :mod:`src.analysis.statistics`; 0 without folds.
        single: The single-task row; None where there is none.
        baseline: The row that others are tested against; None where there is none.
    """

    rows: list[str]
    references: NDArray[np.bool_]
    replicates: list[tuple[int, int | None]]
    columns: list[tuple[str, str]]
    signs: Floats
    values: Floats
    repeats: NDArray[np.bool_]
    overlap: float
    single: int | None
    baseline: int | None

    @cached_property
    def folds(self) -> NDArray[np.int64]:
        """(P,) the fold of each replicate; -1 where the data have one split."""
        return np.array([-1 if fold is None else fold for _, fold in self.replicates])

    @property
    def has_folds(self) -> bool:
        """Whether the data are split into folds."""
        return bool((self.folds >= 0).any())

    @cached_property
    def unit(self) -> int | None:
        """The row whose mean values are the unit of improvements."""
        return self.baseline if self.single is None else self.single

    @cached_property
    def scale(self) -> Floats:
        """(C,) the mean of that row; NaN where it has none, or is zero."""
        if self.unit is None:
            return np.full(len(self.columns), np.nan)
        own = self.values[self.unit]
        scale = np.array([self.estimate(own[:, c]).mean for c in range(own.shape[1])])
        scale[scale == 0] = np.nan
        return scale

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """(C,) the columns that improvements are averaged over."""
        return ~np.isnan(self.scale)

    @cached_property
    def percents(self) -> dict[Convention, Floats]:
        """{convention: (R, P)} each row's values in percent of the unit, averaged over columns.

        A replicate that lacks one counted value has none, since the mean of others would be no
        match for that of other rows.
        """
        filled = np.stack([self._spread(row) for row in range(len(self.rows))])
        percents = 100 * self.signs * filled / np.abs(self.scale)
        tasks = [task for task, _ in self.columns]
        means = []
        for task in dict.fromkeys(tasks):
            own = self.counted & (np.array(tasks) == task)
            if own.any():
                means.append(percents[..., own].mean(-1))
        empty = np.full(filled.shape[:2], np.nan)
        return {
            "metrics": percents[..., self.counted].mean(-1) if means else empty,
            "tasks": np.stack(means).mean(0) if means else empty,
        }

    def _spread(self, row: int) -> Floats:
        """Returns the (P, C) values of a row; those of a reference stand for each seed."""
        values = self.values[row].copy()
        if self.references[row]:
            for fold in set(self.folds):
                inside = self.folds == fold
                for c in range(values.shape[1]):
                    known = values[inside, c][~np.isnan(values[inside, c])]
                    if len(known):
                        values[inside, c] = known.mean()
        return values

    def compare(self, row: int, other: int, convention: Convention = "tasks") -> Floats:
        """Returns the (P,) improvements of a row over another one, replicate by replicate."""
        percents = self.percents[convention]
        improvements: Floats = percents[row] - percents[other]
        return improvements

    def pool(self, sample: Floats) -> Floats:
        """Returns one value for each unit of repetition: the replicates, or the means of folds.

        Args:
            sample: (P,) values of replicates; NaN is none.
        """
        if not self.has_folds:
            return sample
        means = []
        for fold in dict.fromkeys(self.folds):
            inside = sample[self.folds == fold]
            known = inside[~np.isnan(inside)]
            means.append(known.mean() if len(known) else np.nan)
        return np.array(means)

    def estimate(self, sample: Floats) -> Estimate:
        """Returns the mean of a quantity of replicates with its interval; fold-aware."""
        return estimate_mean(self.pool(sample), self.overlap)

    def estimate_value(self, row: int, column: int) -> Estimate:
        """Returns the mean of a test value; a run that serves several seeds counts once."""
        sample = self.values[row, :, column].copy()
        sample[self.repeats[row, :, column]] = np.nan
        return self.estimate(sample)


def arrange_scores(values: Sequence[Value], record: StudyRecord, overlap: float) -> Scores:
    """Arranges the test values of a study as an array.

    Args:
        values: The values of all replicates, on any rows.
        record: The record of the study.
        overlap: n_test/n_train of folds; 0 without folds.
    """
    rows = [row["name"] for row in record["rows"]]
    columns = [(task, metric) for task, its in record["tasks"].items() for metric in its["metrics"]]
    folds = [None] if record["folds"] is None else list(range(record["folds"]))
    replicates = [(seed, fold) for fold in folds for seed in record["seeds"]]
    for row in record["rows"]:
        for replicate in row["replicates"]:
            if (place := (replicate["seed"], replicate["fold"])) not in replicates:
                replicates.append(place)

    shape = (len(rows), len(replicates), len(columns))
    array = np.full(shape, np.nan)
    repeats = np.zeros(shape, dtype=bool)
    row_at = {name: k for k, name in enumerate(rows)}
    place_at = {place: k for k, place in enumerate(replicates)}
    column_at = {column: k for k, column in enumerate(columns)}
    seen = set()
    for value in values:
        if value.split != "test":
            continue
        column = column_at[value.task, value.metric]
        at = (row_at[value.row], place_at[value.seed, value.fold], column)
        array[at] = value.value
        run = (value.row, value.fold, value.task, value.metric, value.run)
        repeats[at] = run in seen
        seen.add(run)

    signs = [record["tasks"][task]["metrics"][metric] for task, metric in columns]
    single, baseline = record["single_task"], record["baseline"]
    return Scores(
        rows=rows,
        references=np.array([row["role"] == "reference" for row in record["rows"]], dtype=bool),
        replicates=replicates,
        columns=columns,
        signs=np.array(signs, dtype=np.float64),
        values=array,
        repeats=repeats,
        overlap=overlap,
        single=None if single is None else row_at.get(single),
        baseline=None if baseline is None else row_at.get(baseline),
    )


def measure_overlap(results: StudyResults) -> float:
    """Returns n_test/n_train of a study's folds; 0 where the data have one split.

    A fold learns from its training and validation rows together, since the latter select the
    weights. Runs that do not know their numbers of rows leave 1 / (folds - 1).
    """
    folds = results.record["folds"]
    if folds is None:
        return 0.0
    ratios = []
    for key in sorted(results.needed & results.trials.keys()):
        data = results.trials[key].record.get("data") or {}
        sizes = data.get("rows")
        if isinstance(sizes, dict) and {"train", "val", "test"} <= sizes.keys():
            ratios.append(sizes["test"] / max(1, sizes["train"] + sizes["val"]))
    return float(np.mean(ratios)) if ratios else 1 / max(1, folds - 1)
