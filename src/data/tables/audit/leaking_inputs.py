"""Inputs that alone predict a label almost perfectly, as copies and consequences of it do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from src.data.audit.finding import Finding, Severity
from src.data.tables.audit.input_columns import InputValues, list_inputs, mend_by_drop
from src.data.tables.audit.label_columns import MOST_CLASSES, LabelColumn, list_label_columns

if TYPE_CHECKING:
    from src.data.tables.table import Table

MOST_PAIRS = 20_000  # pairs of an input and a label
BINS = 100
ALMOST = 0.99  # a score from which on an input predicts a label "almost perfectly"
STRONG = 0.9  # a score that counts only with a name that speaks against the column
FEWEST = 5  # labels that a score needs
# words in the names of columns that are known after the event
LATE_NAME = (
    r"(?i)(^|[_ .-])(after|outcome|result|final|post|discharge[d]?|resolved|resolution|closed"
    r"|settled|actual)($|[_ .-])"
)


@dataclass(frozen=True)
class Score:
    """How well an input alone predicts a label: R2 of numbers, the mean recall of classes."""

    source: str
    label: str
    value: float


def find_leaking_inputs(table: Table, most: int) -> list[Finding]:
    """Finds single inputs that predict labels of other rows almost perfectly.

    Args:
        table: The table.
        most: Most rows that predict, and that are predicted.
    """
    by_source: dict[str, list[Score]] = {}
    for score in score_inputs(table, most):
        by_source.setdefault(score.source, []).append(score)

    findings = []
    for source, scores in by_source.items():
        told = [score for score in scores if score.value >= ALMOST]
        if told:
            names = list(dict.fromkeys(score.label for score in told))
            what = ", ".join(names[:3])
            if len(names) > 3:
                what += f" and {len(names) - 3} more"
            sentence = (
                f"'{source}' alone tells {what} almost without fail: "
                "is it known before the label is?"
            )
            findings.append(make_finding(table, "high", source, sentence, told))
            continue
        named = [score for score in scores if score.value >= STRONG and has_late_name(score)]
        if named:
            best = max(named, key=lambda score: score.value)
            sentence = (
                f"'{source}' alone tells {best.label} with a score of {best.value:.2f}, and its "
                "name says that it may be known only afterwards: is it known before the label is?"
            )
            findings.append(make_finding(table, "medium", source, sentence, [best]))
    return findings


def make_finding(
    table: Table, severity: Severity, source: str, sentence: str, scores: list[Score]
) -> Finding:
    """Returns a finding on an input that tells labels."""
    value = max(score.value for score in scores)
    mend = mend_by_drop(table, [source], "leaves it out")
    return Finding(severity, "leak", sentence, mend, (source,), value=round(value, 4))


def has_late_name(score: Score) -> bool:
    """Returns whether the name of an input says that it follows from the label."""
    if re.search(LATE_NAME, score.source):
        return True
    # churn_reason beside the label churn; a short name such as y is part of many words
    word = re.escape(score.label)
    return len(score.label) > 3 and bool(
        re.search(rf"(?i)(^|[_ .-]){word}($|[_ .-])", score.source)
    )


def score_inputs(table: Table, most: int) -> list[Score]:
    """Scores how well each input alone predicts each label.

    Each input is binned. A bin predicts what the rows in it say that are not scored.

    Args:
        table: The table.
        most: Most rows that predict, and that are predicted.
    """
    rows, checks = draw_rows(table, most)
    labels = list_label_columns(table)
    if not len(checks) or not labels or len(labels) * len(table.columns) > MOST_PAIRS:
        return []
    scores: dict[tuple[str, str], float] = {}
    for column in list_inputs(table):
        bins = bin_values(column, rows)
        if bins is None:
            continue
        # a few validation rows may be told by luck: the rows that predict must be told, too
        found = score_column(column, bins, labels, rows, checks)
        again = score_column(column, bins, labels, rows, rows)
        for name, value in found.items():
            key = column.source, name
            scores[key] = max(scores.get(key, 0.0), min(value, again[name]))
    return [Score(source, name, value) for (source, name), value in scores.items()]


def draw_rows(table: Table, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers of rows that predict, and of rows that are predicted.

    They are training and validation rows. Where validation rows have a file of their own, a third
    of the training rows stands for them.
    """
    train, checks = table.rows["train"], table.rows["val"]
    if not len(checks):
        is_check = np.arange(len(train)) % 3 == 1
        train, checks = train[~is_check], train[is_check]
    return space_rows(train, most), space_rows(checks, most)


def space_rows(rows: np.ndarray, most: int) -> np.ndarray:
    """Returns some of the row numbers, evenly spaced."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(int)]


def bin_values(column: InputValues, rows: np.ndarray) -> np.ndarray | None:
    """Bins an input: numbers by the quantiles of some rows, categories by value.

    Returns:
        (N,) bins of all rows; None where bins of one row each would predict nothing.
    """
    values = column.values
    if not column.numeric:
        return values if len(np.unique(values[rows])) <= len(rows) / 2 else None
    known = values[rows][~np.isnan(values[rows])]
    if not len(known):
        return None
    distinct = np.unique(known)
    if len(distinct) > BINS:
        distinct = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]))
        bins = np.searchsorted(distinct, values, side="right")
    else:
        # other values fall to the next one below
        bins = np.searchsorted(distinct, values, side="right")
    return np.where(np.isnan(values), len(distinct) + 1, bins)


def score_column(
    column: InputValues,
    bins: np.ndarray,
    labels: list[LabelColumn],
    rows: np.ndarray,
    checks: np.ndarray,
) -> dict[str, float]:
    """Scores one input against all labels: {name: score}.

    Args:
        column: The input.
        bins: (N,) its bins.
        labels: The labels of all rows.
        rows: Numbers of the rows that predict.
        checks: Numbers of the rows that are predicted.
    """
    found = score_bins(bins[rows], bins[checks], labels, rows, checks)
    if column.numeric:
        for label in labels:
            if label.numeric:
                value = score_order(column.values[checks], label.values[checks])
                found[label.name] = max(found[label.name], value)
    return found


def score_bins(
    train: np.ndarray,
    check: np.ndarray,
    labels: list[LabelColumn],
    rows: np.ndarray,
    checks: np.ndarray,
) -> dict[str, float]:
    """Scores the bins of one input against all labels: {name: score}.

    Args:
        train: (N,) bins of the rows that predict.
        check: (M,) bins of the rows that are predicted.
        labels: The labels of all rows.
        rows: (N,) numbers of the rows that predict.
        checks: (M,) numbers of the rows that are predicted.
    """
    found: dict[str, float] = {}
    numbers = [label for label in labels if label.numeric]
    if numbers:
        values = np.stack([label.values for label in numbers], 1)
        r2 = score_r2(train, check, values[rows], values[checks])
        found |= {label.name: float(r2[i]) for i, label in enumerate(numbers)}
    for label in labels:
        if label.numeric:
            continue
        parts = label.list_parts()
        if len(parts) > MOST_CLASSES:
            mode = score_modes(train, check, label.values[rows], label.values[checks])
            found[label.name] = mode
            continue
        values = np.stack(parts, 1)
        recall = score_recall(train, check, values[rows], values[checks])
        counts = np.stack([(values[checks] == side).sum(0) for side in (0, 1)])

        # a class that hardly any row has tells nothing; of the others all must be told
        is_known = counts.min(0) >= FEWEST
        found[label.name] = float(recall[is_known].min()) if is_known.any() else 0.0
    return found


def score_r2(
    train: np.ndarray, check: np.ndarray, labels: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Returns the R2 of the means of bins, (T,); 0 where labels are too few or all the same.

    Args:
        train: (N,) bins of the rows that predict.
        check: (M,) bins of the rows to check.
        labels: (N, T) labels of the rows that predict, NaN where missing.
        wanted: (M, T) labels of the rows to check.
    """
    known = ~np.isnan(wanted)
    means = predict_by_bin(train, check, labels)
    enough = (known.sum(0) >= FEWEST) & ((~np.isnan(labels)).sum(0) >= 2 * FEWEST)
    wanted = np.where(known, wanted, 0)
    middle = wanted.sum(0) / np.maximum(known.sum(0), 1)
    spread = (np.where(known, wanted - middle, 0) ** 2).sum(0)
    errors = (np.where(known, wanted - means, 0) ** 2).sum(0)
    return np.where(enough & (spread > 0), 1 - errors / np.where(spread > 0, spread, 1), 0.0)


def score_order(values: np.ndarray, labels: np.ndarray) -> float:
    """Returns the squared rank correlation of an input and a label; 0 where rows are too few.

    It finds a rescaled copy of a label with a few huge values, which bins predict badly.

    Args:
        values: (M,) numbers, NaN where missing.
        labels: (M,) numbers, NaN where missing.
    """
    known = ~np.isnan(values) & ~np.isnan(labels)
    # a column that few rows have tells little of the others
    if known.sum() < max(4 * FEWEST, 0.5 * (~np.isnan(labels)).sum()):
        return 0.0
    ranks = np.stack([rank_values(values[known]), rank_values(labels[known])])
    if (ranks.std(1) == 0).any():
        return 0.0
    return float(np.corrcoef(ranks)[0, 1] ** 2)


def rank_values(values: np.ndarray) -> np.ndarray:
    """Returns the rank of each value; equal values share the middle of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: np.ndarray = (ends - (counts - 1) / 2)[places]
    return ranks


def score_recall(
    train: np.ndarray, check: np.ndarray, labels: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Returns the mean recall of 0 and of 1, (T,), or 0 where labels are too few.

    A bin predicts 1 if the share of 1 in it is above the share in all rows that predict.

    Args:
        train: (N,) bins of the rows that predict.
        check: (M,) bins of the rows to check.
        labels: (N, T) labels of the rows that predict, 0 or 1, NaN where missing.
        wanted: (M, T) labels of the rows to check.
    """
    guess = predict_by_bin(train, check, labels) > np.nan_to_num(average_known(labels))
    enough = (~np.isnan(labels)).sum(0) >= 2 * FEWEST
    recalls = []
    for label in (0, 1):
        there = wanted == label
        hit = (guess == label) & there
        recalls.append(np.where(there.any(0), hit.sum(0) / np.maximum(there.sum(0), 1), 0.0))
    return np.where(enough, (recalls[0] + recalls[1]) / 2, 0.0)


def score_modes(
    train: np.ndarray, check: np.ndarray, labels: np.ndarray, wanted: np.ndarray
) -> float:
    """Returns the mean recall of many classes, where each bin predicts its commonest one.

    Args:
        train: (N,) bins of the rows that predict.
        check: (M,) bins of the rows to check.
        labels: (N,) positions of classes, NaN where missing.
        wanted: (M,) positions of classes of the rows to check.
    """
    known, asked = ~np.isnan(labels), ~np.isnan(wanted)
    if asked.sum() < FEWEST or known.sum() < 2 * FEWEST:
        return 0.0
    size = int(max(train.max(initial=0), check.max(initial=0))) + 1
    classes = int(max(labels[known].max(), wanted[asked].max())) + 1
    counts = np.zeros((size, classes))
    np.add.at(counts, (train[known], labels[known].astype(int)), 1)
    truth = wanted[asked].astype(int)
    hit = counts.argmax(1)[check[asked]] == truth
    of_class = np.bincount(truth, minlength=classes)
    recalls = np.bincount(truth, hit, minlength=classes)[of_class > 0] / of_class[of_class > 0]
    return float(recalls.mean())


def predict_by_bin(train: np.ndarray, check: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns for each row to check the mean label of its bin, (M, T).

    An empty bin has the mean of all rows.
    """
    size = int(max(train.max(initial=0), check.max(initial=0))) + 1
    place = torch.from_numpy(train)
    known = torch.from_numpy(~np.isnan(labels))
    values = torch.from_numpy(np.nan_to_num(labels))
    sums = torch.zeros(size, labels.shape[1], dtype=torch.float64).index_add_(0, place, values)
    counts = torch.zeros_like(sums).index_add_(0, place, known.double())
    overall = np.nan_to_num(average_known(labels))
    means = np.where(counts > 0, sums / counts.clamp(min=1), overall)
    return np.asarray(means[check])


def average_known(labels: np.ndarray) -> np.ndarray:
    """Returns the mean of the known labels, (T,); NaN where there are none."""
    known = ~np.isnan(labels)
    return np.where(known.any(0), np.nansum(labels, 0) / np.maximum(known.sum(0), 1), np.nan)
