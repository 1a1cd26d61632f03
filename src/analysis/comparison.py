"""The comparison of a study's rows: every number that its report shows, as tables.

Conventions of all tables: ``row`` is the name of a row; ``seed`` and ``fold`` name a replicate
(``fold`` is missing where the data have one split); a mean stands with the ends ``low`` and
``high`` of its 95 % interval, which are NaN where one replicate gives none; ``n`` is the number of
replicates behind it, of folds where there are folds. Rows stand in the order of the record.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.analysis.costs import compare_costs, list_tuning
from src.analysis.marks import list_marks
from src.analysis.notes import describe_methods
from src.analysis.origins import Origins, list_origins
from src.analysis.record import StudyRecord
from src.analysis.results import StudyResults, Value
from src.analysis.scores import Scores, arrange_scores, measure_overlap
from src.analysis.statistics import (
    FEWEST,
    LEVEL,
    Estimate,
    adjust_holm,
    compute_p_of_mean,
    compute_p_of_ranks,
    group_ranks,
    measure_critical_difference,
    rank_rows,
)


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
        candidates: Monitors on validation rows of settings that were tuned, long: row, fold, trial,
            run, settings (JSON text), task, value (raw), score (val/score of the trial), chosen
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
        tuning: row, fold, tasks (comma-separated, for which the settings were chosen), tried,
            failed (candidates without a score), chosen (JSON text of the settings), trial, score.
        notes: Sentences on how the numbers were made: data, tuning, intervals, delta, tests.
        marks: Sentences on what a reader must know: other code, data or versions; failed trials
            with their line; missing runs; an unfinished study.
        origins: (name, distinct values) of code, data, Python, system and packages of all trials.
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
    notes: list[str]
    marks: list[str]
    origins: Origins


def compare_rows(
    results: StudyResults,
    values: list[Value],
    shown: list[tuple[str, str]],
    pareto: tuple[str, str] | None,
) -> Comparison:
    """Computes all tables of a report.

    Args:
        results: The results of the study's trials.
        values: Every metric of every replicate.
        shown: (task, metric) of the columns of the main table.
        pareto: The two tasks of the front.
    """
    record = results.record
    scores = arrange_scores(values, record, measure_overlap(results))
    costs, cost_unit = compare_costs(results)
    tuning = list_tuning(results)
    return Comparison(
        folder=results.folder,
        root=results.root,
        record=record,
        shown=shown,
        pareto=pareto,
        values=pd.DataFrame(values, columns=list(Value.__annotations__)).astype({"fold": "Int64"}),
        candidates=results.list_candidates(),
        curves=results.list_curves(),
        summary=summarise(scores),
        deltas=list_deltas(scores),
        ranks=rank_by_task(scores, record),
        tests=compare_with_baseline(scores),
        critical=find_critical_difference(scores),
        costs=costs,
        cost_unit=cost_unit,
        tuning=tuning,
        notes=describe_methods(scores, record, tuning, cost_unit),
        marks=list_marks(results, scores),
        origins=list_origins(results),
    )


def summarise(scores: Scores) -> pd.DataFrame:
    """Returns the mean test value of each row in each metric, with its interval."""
    lines = []
    for row, name in enumerate(scores.rows):
        for column, (task, metric) in enumerate(scores.columns):
            estimate = scores.estimate_value(row, column)
            lines.append((name, task, metric, *estimate))
    return pd.DataFrame(lines, columns=["row", "task", "metric", "mean", "low", "high", "n"])


def list_deltas(scores: Scores) -> pd.DataFrame:
    """Returns the improvement of each row over single-task networks, in both conventions.

    That of the single-task row is 0 by definition, and has no interval.
    """
    lines: list[tuple[object, ...]] = []
    if scores.single is not None:
        for row, name in enumerate(scores.rows):
            for convention in ("metrics", "tasks"):
                sample = scores.compare(row, scores.single, convention)
                estimate = scores.estimate(sample)
                if row == scores.single:
                    estimate = Estimate(0.0, np.nan, np.nan, estimate.n)
                lines.append((name, convention, *estimate))
    return pd.DataFrame(lines, columns=["row", "convention", "mean", "low", "high", "n"])


def rank_by_task(scores: Scores, record: StudyRecord) -> pd.DataFrame:
    """Returns the mean rank of each row over tasks, by their monitors, and replicates.

    Blocks that lack a row are left out, so that all ranks are over the same blocks. A row that has
    no value at all is not ranked, nor is a reference.
    """
    monitors = [record["tasks"][task]["monitor"] == metric for task, metric in scores.columns]
    signed = (scores.values * scores.signs)[..., np.array(monitors, dtype=bool)]
    # (R, P, T) -> (P T, R)
    blocks = signed.reshape(len(scores.rows), -1).T
    ranked, complete = find_complete_blocks(blocks, ~scores.references)
    mean = np.full(len(scores.rows), np.nan)
    if complete.any():
        mean[ranked] = rank_rows(blocks[complete][:, ranked]).mean(0)
    counts = np.where(ranked, complete.sum(), 0)
    return pd.DataFrame({"row": scores.rows, "rank": mean, "n": counts})


def find_complete_blocks(blocks: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that can be ranked, and the blocks in which all of them have a value.

    Where no block has them all, the row with the fewest values leaves, until one does.

    Args:
        blocks: (blocks, rows), NaN where there is no value.
        wanted: (rows,) which of them shall be ranked.
    """
    known = ~np.isnan(blocks)
    rows = wanted & known.any(0)
    while rows.any() and not known[:, rows].all(1).any():
        counts = np.where(rows, known.sum(0), len(blocks) + 1)
        rows[np.argmin(counts)] = False
    complete = known[:, rows].all(1) if rows.any() else np.zeros(len(blocks), dtype=bool)
    return rows, complete


def compare_with_baseline(scores: Scores) -> pd.DataFrame:
    """Tests each row against the baseline, paired by seed and fold, with Holm's correction.

    One quantity is tested in each row: the mean over tasks of the improvement in percent.
    """
    columns = ["row", "difference", "low", "high", "n", "p", "p_holm", "verdict"]
    lines = []
    for row, name in enumerate(scores.rows):
        if scores.baseline is None or row == scores.baseline or scores.references[row]:
            continue
        sample = scores.compare(row, scores.baseline)
        p = compute_p_of_mean(scores.pool(sample), scores.overlap)
        lines.append((name, *scores.estimate(sample), p))
    frame = pd.DataFrame(lines, columns=columns[:-2])
    frame["p_holm"] = adjust_holm(frame["p"].to_numpy(dtype=np.float64))
    verdicts = []
    for difference, p in zip(frame["difference"], frame["p_holm"], strict=True):
        if np.isnan(p):
            verdicts.append("too few replicates")
        elif p >= LEVEL:
            verdicts.append("no significant difference")
        else:
            verdicts.append("better" if difference > 0 else "worse")
    frame["verdict"] = pd.Series(verdicts, dtype=object)
    return frame


def find_critical_difference(scores: Scores) -> CriticalDifference | None:
    """Ranks rows within replicates, and groups rows that do not differ; None where it cannot."""
    pooled = [scores.pool(sample) for sample in scores.percents["tasks"]]
    blocks = np.stack(pooled).T
    ranked, complete = find_complete_blocks(blocks, ~scores.references)
    names = [name for name, is_ranked in zip(scores.rows, ranked, strict=True) if is_ranked]
    n = int(complete.sum())
    if len(names) < 3 or n < FEWEST:
        return None

    inside = blocks[complete][:, ranked]
    means = dict(zip(names, rank_rows(inside).mean(0).tolist(), strict=True))
    ranks = dict(sorted(means.items(), key=lambda item: item[1]))
    p = compute_p_of_ranks(inside)
    difference = measure_critical_difference(len(names), n)
    # Nemenyi's test follows a Friedman test that rejects; otherwise nothing tells rows apart
    groups = group_ranks(ranks, difference) if p < LEVEL else [list(ranks)]
    unit = "folds, over whose seeds delta was averaged" if scores.has_folds else "seeds"
    meaning = (
        f"Rows that a bar joins are not told apart at the {LEVEL:.0%} level, in ranks of delta "
        f"within {n} {unit} (Friedman p = {p:.2g}, then Nemenyi). Replicates are of one data set: "
        "the diagram says how firm the order is when the study is repeated on it, not that it "
        "holds on other data."
    )
    if scores.has_folds:
        meaning += " Training rows of folds overlap, which ranks cannot correct for."
    return CriticalDifference(ranks, n, p, difference, groups, meaning)
