"""Rows with times in a split at random, whose scores are of the past and not of the future."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from src.data.audit.finding import Finding, Mend, write_name
from src.data.tables.audit.input_columns import has_setting
from src.data.tables.audit.label_columns import list_label_columns
from src.data.tables.audit.leaking_inputs import rank_values
from src.data.tables.numbers import BadValue
from src.data.tables.times import read_times

if TYPE_CHECKING:
    from src.data.tables.table import Table

FEWEST = 30  # known times
DISTINCT = 5  # different times
TREND = 0.15  # correlation of the labels of rows that follow one another
CERTAIN = 6.0  # standard errors of this correlation
# numbers with such a name may be times; a year in which something was born or built is none
TIME_NAME = r"(?i)(^|[_ .-])(timestamp|datetime|date|time|year|yr|epoch|period|month)($|[_ .-])"
OTHER_NAME = r"(?i)born|birth|dob|built|made|founded|model|construct|found"


def find_time_order(table: Table) -> list[Finding]:
    """Finds columns of times where rows are split at random.

    Dates count wherever they stand, numbers only where the rows of the file are sorted by them.
    """
    if table.split_column or table.group or table.time or len(table.table_files.paths) == 3:
        return []
    if not has_setting(table, "time"):
        return []
    targets = {column for columns in table.targets.values() for column in columns}
    findings = []
    for name in table.main.columns:
        times = None if name in targets else find_times(table, str(name))
        if times is None:
            continue
        settings = [("time", write_name(name))]
        # only one setting can decide the split
        settings += [("stratify", "null")] if table.stratify else []
        settings += [("folds", "null")] if table.folds is not None else []
        mend = Mend(tuple(settings), "trains on the earliest rows and tests on the latest")
        trend = measure_trend(table, times)
        if trend is None:
            sentence = (
                f"'{name}' holds times, and rows are split at random: scores are of the same days "
                "as the training rows, not of later ones"
            )
            findings.append(Finding("low", "time order", sentence, mend, (str(name),)))
        else:
            label, value = trend
            sentence = (
                f"'{name}' holds times, rows are split at random, and {label} is alike in rows "
                f"that follow one another (correlation {value:.2f}): scores look better than they "
                "will be on later rows"
            )
            findings.append(
                Finding("medium", "time order", sentence, mend, (str(name),), (), round(value, 4))
            )
        # other columns of times would be mended by the same split
        break
    return findings


def find_times(table: Table, name: str) -> np.ndarray | None:
    """Returns the times of a column (N,), NaN where missing; None where it holds none."""
    if re.search(OTHER_NAME, name):
        return None
    try:
        times, are_dates = read_times(table.main[name], table.date_format)
    except BadValue:
        return None
    known = times[~np.isnan(times)]
    if len(known) < FEWEST or len(np.unique(known)) < DISTINCT:
        return None
    if are_dates:
        return times
    is_sorted = bool((np.diff(known) >= 0).mean() > 0.99)
    return times if is_sorted and re.search(TIME_NAME, name) else None


def measure_trend(table: Table, times: np.ndarray) -> tuple[str, float] | None:
    """Returns the label that is most alike in rows that follow one another, with its correlation.

    It is None where no correlation is large and certain.
    """
    order = np.argsort(times, kind="stable")
    order = order[~np.isnan(times[order])]
    best = None
    for label in list_label_columns(table):
        for part in label.list_parts():
            values = part[order]
            values = values[~np.isnan(values)]
            if len(values) < FEWEST or values.std() == 0:
                continue
            # ranks, so that a few huge values do not decide
            values = rank_values(values)
            value = float(np.corrcoef(values[:-1], values[1:])[0, 1])
            is_certain = value * np.sqrt(len(values)) > CERTAIN
            if value > TREND and is_certain and (best is None or value > best[1]):
                best = label.name, value
    return best
