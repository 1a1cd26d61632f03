"""The comparison of a study's rows: every number that its report shows, as tables.

Conventions of all tables: ``row`` is the name of a row; ``seed`` and ``fold`` name a replicate
(``fold`` is missing where the data have one split); a mean stands with the ends ``low`` and
``high`` of its 95 % interval, which are NaN where one replicate gives none; ``n`` is the number of
replicates behind it. Rows stand in the order of the record.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from src.analysis.record import StudyRecord

LEVEL = 0.05  # of tests; intervals cover 1 - LEVEL


@dataclass(frozen=True)
class CriticalDifference:
    """Rows by their mean rank, and groups of rows that do not differ significantly.

    A block is a replicate, ranked by the delta of each row (tasks convention), so that n counts
    independent repetitions, not tasks of one network (Friedman test, then Nemenyi's; Demsar 2006,
    https://jmlr.org/papers/v7/demsar06a.html).

    Attributes:
        ranks: {row: mean rank over the blocks, 1 for the best}, best first.
        n: Blocks.
        p: Of Friedman's test that all rows are alike.
        difference: Mean ranks that differ by less than this are not significantly different.
        groups: Rows joined by a bar, each group from the best to the worst; a row that differs from
            all others is in none.
        meaning: What the diagram says and does not say, in a sentence or two.
    """

    ranks: dict[str, float]
    n: int
    p: float
    difference: float
    groups: list[list[str]]
    meaning: str


@dataclass(frozen=True)
class Comparison:
    """A study's rows side by side.

    Attributes:
        folder: The folder of the study.
        root: The folder that run folders are relative to.
        record: The record of the study.
        shown: (task, metric) of the columns of the main table: the monitors, or what was asked for.
        pareto: The two tasks of the front; None where the study has one task.
        values: Every metric of every replicate, long: row, role, seed, fold, task, metric, split
            ("val" or "test"), value, sign (1 where more is better, -1 where less is), run (the run
            folder, relative to the root).
        candidates: Monitors on validation rows of settings that were tuned, long: row, trial, run,
            settings (JSON text), task, value (raw), sign, score (val/score of the trial), chosen
            (whether it was chosen for this task).
        curves: Validations of replicates, long: row, seed, fold, task ("" for the score of all),
            step, epoch, score (higher is better).
        summary: Of test values: row, task, metric, mean, low, high, n.
        deltas: Improvement over the single-task row in percent, higher is better: row, convention
            ("metrics": the mean over all metrics; "tasks": over tasks of the mean over a task's
            metrics), mean, low, high, n. Without a single-task row it is empty.
        ranks: row, rank (mean over tasks, by their monitor, and replicates; 1 is the best), n
            (blocks, tasks x replicates). References are not ranked.
        tests: Against the baseline row, in percentage points of delta (tasks convention): row,
            difference, low, high, n, p, p_holm, verdict ("better", "worse", "no significant
            difference", "too few replicates"). The baseline and references have no line.
        critical: The critical-difference diagram; None where there are too few rows or replicates.
        costs: Means per replicate: row, seconds, steps, memory (bytes of the process, of the GPU
            where there is one), relative (seconds, relative to ``cost_unit``), tuning_seconds (of
            all candidates together), n. NaN where it is not known.
        cost_unit: The row that trains with fixed weights alone; None where there is none.
        tuning: row, tasks (those that the settings were chosen for, comma-separated), tried, failed
            (candidates without a score), chosen (JSON text of the settings), trial, score.
        notes: Sentences on how the numbers were made: data, tuning, intervals, delta, tests.
        marks: Sentences on what a reader must know: other code, data or versions; failed trials
            with their line; missing runs; an unfinished study.
    """

    folder: Path
    root: Path
    record: StudyRecord
    shown: list[tuple[str, str]]
    pareto: tuple[str, str] | None
    values: pd.DataFrame
    candidates: pd.DataFrame
    curves: pd.DataFrame
    summary: pd.DataFrame
    deltas: pd.DataFrame
    ranks: pd.DataFrame
    tests: pd.DataFrame
    critical: CriticalDifference | None
    costs: pd.DataFrame
    cost_unit: str | None
    tuning: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
