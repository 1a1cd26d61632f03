"""Columns that are filled, or dated, only once a label is known."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np

from src.data.audit.finding import Finding, Severity
from src.data.tables.audit.input_columns import mend_by_drop
from src.data.tables.audit.label_columns import MOST_CLASSES, LabelColumn, list_label_columns
from src.data.tables.audit.leaking_inputs import rank_values, space_rows
from src.data.tables.columns import MemberColumn, Numeric
from src.data.tables.dates import DatePart, read_dates
from src.data.tables.numbers import BadValue

if TYPE_CHECKING:
    from src.data.tables.table import Table

FEWEST = 20  # rows with a value, and without
PURE = 0.99  # share of one class among the rows with a value, or without
CHANCE = 1e-9  # probability of as pure a set of rows without a reason
ALL = 0.9  # share of a class's rows that have a value: then the two mean the same
COMMON = 0.95  # a class with a larger share is nearly pure in any set of rows
SAME = 0.999  # squared correlation of a label with the time between two dates


def find_late_columns(table: Table, most: int) -> list[Finding]:
    """Finds inputs that have a value only in rows with one label, as consequences of it do.

    Args:
        table: The table.
        most: Most rows that are read.
    """
    rows = space_rows(table.rows["train"], most)
    labels = list_label_columns(table)
    sources = [c.source for c in table.columns if not isinstance(c, MemberColumn)]
    findings = []
    for source in dict.fromkeys(sources):
        filled = table.main[source].iloc[rows].notna().to_numpy()
        if min(filled.sum(), (~filled).sum()) < FEWEST:
            continue
        for label in labels:
            finding = compare_filled(table, source, filled, label, rows)
            if finding is not None:
                findings.append(finding)
                break
    return findings


def compare_filled(
    table: Table, source: str, filled: np.ndarray, label: LabelColumn, rows: np.ndarray
) -> Finding | None:
    """Returns a finding if a column has a value only in rows with one label.

    Args:
        table: The table.
        source: The column.
        filled: (N,) whether it has a value.
        label: A label of all rows.
        rows: (N,) the rows.
    """
    values = label.values[rows]
    known = ~np.isnan(values)
    there, values = filled[known], values[known]
    if min(there.sum(), (~there).sum()) < FEWEST:
        return None
    if label.numeric:
        return compare_numbers(table, source, there, label, values)

    classes = np.unique(values)
    if not 1 < len(classes) <= MOST_CLASSES:
        return None
    for is_there, verb in ((there, "filled"), (~there, "empty")):
        for value in classes:
            is_class = values == value
            # without a value in nearly all rows, its few others may be of any class
            if not is_pure(is_class[is_there], float(is_class.mean())):
                continue
            share = float(is_there[is_class].mean())
            word = label.words[int(value)] if int(value) < len(label.words) else f"{value:g}"
            counts = f"{is_class[is_there].sum()} of {is_there.sum()} such rows"
            sentence = (
                f"'{source}' is {verb} only where {label.name} is {word} ({counts}): "
                "is it known before the label is?"
            )
            severity: Severity = "high" if share >= ALL else "medium"
            return report(table, source, severity, sentence, share)
    return None


def is_pure(is_class: np.ndarray, base: float) -> bool:
    """Returns whether rows are of one class, and of a rarer one than chance explains.

    By Chernoff, n rows have a share p of a class with the share q with a probability of at most
    exp(-n KL(p, q)).

    Args:
        is_class: (n,) whether each row is of the class.
        base: The share q of the class in all rows.
    """
    n = len(is_class)
    share = float(is_class.mean())
    if base > COMMON or share < PURE:
        return False
    divergence = share * log(share / base)
    if share < 1:
        divergence += (1 - share) * log((1 - share) / (1 - base))
    return n * divergence > -log(CHANCE)


def compare_numbers(
    table: Table, source: str, there: np.ndarray, label: LabelColumn, values: np.ndarray
) -> Finding | None:
    """Returns a finding if numbers with and without a value of a column hardly overlap."""
    ranks = rank_values(values)
    n = int(there.sum())

    # the probability that a number of a filled row is above one of an empty row
    above = (ranks[there].sum() - n * (n + 1) / 2) / (n * (len(there) - n))
    if PURE > above > 1 - PURE:
        return None
    word = "high" if above > 0.5 else "low"
    sentence = (
        f"'{source}' is filled only where {label.name} is {word}: is it known before the label is?"
    )
    return report(table, source, "high", sentence, max(above, 1 - above))


def report(table: Table, source: str, severity: Severity, sentence: str, value: float) -> Finding:
    """Returns a finding on a column that the label fills."""
    mend = mend_by_drop(table, [source], "leaves it out")
    return Finding(severity, "leak", sentence, mend, (source,), value=round(value, 4))


def find_time_spans(table: Table, most: int) -> list[Finding]:
    """Finds dates whose distance from an earlier date is a label, such as that of a delivery.

    Args:
        table: The table.
        most: Most rows that are read.
    """
    rows = space_rows(table.rows["train"], most)
    formats = {}
    for column in table.columns:
        if isinstance(column, Numeric) and isinstance(column.reads, DatePart):
            formats[column.source] = column.reads.format
    if len(formats) < 2:
        return []
    times = {}
    for source, form in formats.items():
        try:
            dates = read_dates(table.main[source].iloc[rows], form)
        except BadValue:
            continue
        days = dates.to_numpy(dtype="datetime64[s]").astype(np.float64) / 86400
        times[source] = np.where(dates.isna(), np.nan, days)

    findings = []
    for label in list_label_columns(table):
        if not label.numeric:
            continue
        for later, end in times.items():
            for earlier, start in times.items():
                span = end - start
                # each pair once, with the later date first
                if later == earlier or np.nanmean(span) <= 0:
                    continue
                if correlate(span, label.values[rows]) >= SAME:
                    sentence = (
                        f"{label.name} is the time from '{earlier}' to '{later}': "
                        f"is '{later}' known before the label is?"
                    )
                    findings.append(report(table, later, "high", sentence, 1.0))
    return findings


def correlate(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the squared correlation of two columns of numbers; 0 where it is not defined."""
    known = ~np.isnan(first) & ~np.isnan(second)
    if known.sum() < FEWEST or first[known].std() == 0 or second[known].std() == 0:
        return 0.0
    return float(np.corrcoef(first[known], second[known])[0, 1] ** 2)
