"""Columns that name or number rows, and codes for missing values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from src.data.audit.finding import Finding, Mend, write_name
from src.data.tables.audit.input_columns import has_setting, mend_by_drop
from src.data.tables.columns import Numeric
from src.data.tables.numbers import NumberFormat

if TYPE_CHECKING:
    from src.data.tables.table import Table

# words in the names of columns that name what rows belong to
GROUPS = (
    "id|uid|uuid|nr|key|patient|subject|person|participant|user|customer|client|member"
    "|session|visit|site|hospital|clinic|center|centre|batch|plate|well|donor|family"
    "|household|group|scaffold|device|machine|store|shop"
)
# no plurals: a column of visits counts them
NAMES_OF_GROUPS = rf"(?i)(^|[_ .-])({GROUPS})($|[_ .-]|id$)"
MISSING_CODES = (
    *(-1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0, -88.0, -77.0),
    *(99.0, 999.0, 9999.0, 99999.0, 999999.0),
)
HUGE = 1e30  # no measurement is as large


def find_identifiers(table: Table) -> list[Finding]:
    """Finds inputs of whole numbers that seem to number the rows."""
    found = find_row_numbers(table)
    if not found:
        return []
    sentence = f"{', '.join(found)}: another whole number in each row, as identifiers are"
    mend = mend_by_drop(table, found, "leaves them out")
    return [Finding("medium", "identifier", sentence, mend, tuple(found))]


def find_row_numbers(table: Table) -> list[str]:
    """Returns the inputs that hold a different whole number in each row, as identifiers do.

    Their order, their density or their name must also speak against measurements.
    """
    found = []
    for column, numbers in list_numeric_inputs(table):
        known = numbers[~np.isnan(numbers)]
        if len(known) < 20 or (known != np.floor(known)).any():
            continue
        if len(np.unique(known)) < len(known):
            continue
        steps = np.diff(known)

        # 10, 40, 30 are as dense as 1, 4, 3; integers above 2^53 are not exact in float64
        step = np.gcd.reduce(steps.astype(np.int64)) if np.abs(known).max() < 2**53 else 1
        dense = known.max() - known.min() < 2 * len(known) * step
        sorted_ = (steps > 0).all() or (steps < 0).all()
        if dense or sorted_ or re.search(NAMES_OF_GROUPS, column):
            found.append(column)
    return found


def find_missing_codes(table: Table) -> list[Finding]:
    """Finds numbers such as -999 that repeat and are far from all others."""
    findings = []
    for column, numbers in list_numeric_inputs(table):
        values, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
        if len(values) < 4:
            continue
        for end, rest in ((0, values[1:]), (-1, values[:-1])):
            code = values[end]
            times = counts[end]
            gap = min(abs(code - rest[0]), abs(code - rest[-1]))
            is_far = code in MISSING_CODES and times >= 2 and gap > rest[-1] - rest[0]
            if is_far or abs(code) >= HUGE:
                sentence = (
                    f"'{column}' holds {code:g} in {times} rows, far from all else, as codes for "
                    "missing values are"
                )
                mend = None
                if has_setting(table, "missing"):
                    words = [*map(write_name, table.layout.missing), f"{code:g}"]
                    setting = "missing", f"[{', '.join(words)}]"
                    mend = Mend((setting,), "reads it as missing")
                rows = np.flatnonzero(numbers == code)[:5] + 1
                found = tuple(rows.tolist())
                findings.append(
                    Finding("medium", "missing code", sentence, mend, (column,), found, int(times))
                )
    return findings


def list_numeric_inputs(table: Table) -> list[tuple[str, np.ndarray]]:
    """Returns the inputs that are numbers, but no parts of dates, with the numbers of all rows."""
    numeric = [column for column in table.columns if isinstance(column, Numeric)]
    columns = [column for column in numeric if isinstance(column.reads, NumberFormat)]
    return [(column.column, column.reads.numbers(table.main[column.source])) for column in columns]
