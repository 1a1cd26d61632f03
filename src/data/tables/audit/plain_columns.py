"""Columns that hold nothing, and columns whose values differ between the splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from src.data.audit.distances import measure_classes, measure_numbers
from src.data.audit.finding import Finding, Mend, Severity, list_few, write_list
from src.data.tables.audit.input_columns import has_setting, list_inputs, mend_by_drop
from src.data.tables.audit.label_columns import list_label_columns
from src.data.tables.audit.leaking_inputs import space_rows
from src.data.tables.columns import MemberColumn
from src.data.tables.inputs import CONSTANT

if TYPE_CHECKING:
    from src.data.rows import Split
    from src.data.tables.table import Table

EMPTY = 0.95  # share of missing values from which a column tells little
LEAST = 0.1  # distance that is worth a word
LARGE = 0.3  # distance that changes what scores mean


def find_constant_columns(table: Table) -> list[Finding]:
    """Finds columns with one value, or none, in the training rows; they are no inputs already."""
    names = [name for name, reason in table.dropped.items() if reason == CONSTANT]
    names = [name for name in names if name in table.main.columns]
    empty = [name for name in names if not table.main[name].notna().any()]
    others = [name for name in names if name not in empty]
    findings = []
    for found, what in ((empty, "no value at all"), (others, "one value in all training rows")):
        if found:
            verb = "have" if len(found) > 1 else "has"
            are = "are no inputs" if len(found) > 1 else "is no input"
            sentence = f"{list_few(found)} {verb} {what}, and {are}"
            mend = mend_by_drop(table, found, "says so") if has_setting(table, "drop") else None
            findings.append(Finding("low", "constant", sentence, mend, tuple(found)))
    return findings


def find_empty_columns(table: Table) -> list[Finding]:
    """Finds inputs that hardly any row has."""
    sources = [c.source for c in table.columns if not isinstance(c, MemberColumn)]
    train = table.main.iloc[table.rows["train"]]
    found = [name for name in dict.fromkeys(sources) if train[name].isna().mean() >= EMPTY]
    if not found:
        return []
    verb = "have" if len(found) > 1 else "has"
    sentence = f"{list_few(found)} {verb} a value in less than {1 - EMPTY:.0%} of the training rows"
    effect = "leaves them out" if len(found) > 1 else "leaves it out"
    return [Finding("low", "empty", sentence, mend_by_drop(table, found, effect), tuple(found))]


def find_shift(table: Table, most: int) -> list[Finding]:
    """Finds inputs and labels whose values differ between the training split and the others.

    Args:
        table: The table.
        most: Most rows of each split.
    """
    findings = []
    for side in ("val", "test"):
        far = measure_inputs(table, side, most)
        if far:
            findings.append(report_inputs(table, side, far))
        far = measure_labels(table, side, most)
        if far:
            findings.append(report_labels(table, side, far))
    return findings


def measure_inputs(table: Table, side: Split, most: int) -> dict[str, float]:
    """Returns the distances of inputs between training rows and a split, the largest first.

    Distances that chance explains, and small ones, are left out.
    """
    train = space_rows(table.rows["train"], most)
    sections = {"train": table.rows[side]}
    if side in table.table_files.paths:
        sections[side] = np.arange(len(table.table_files.frame(side)))
    theirs: dict[str, list[np.ndarray]] = {}
    for role, rows in sections.items():
        for column in list_inputs(table, role):
            theirs.setdefault(column.column, []).append(column.values[space_rows(rows, most)])

    found: dict[str, float] = {}
    for column in list_inputs(table):
        ours, other = column.values[train], np.concatenate(theirs[column.column])
        distance = compare(ours, other, column.numeric, len(theirs))
        if distance is not None:
            found[column.source] = max(distance, found.get(column.source, 0.0))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def measure_labels(table: Table, side: Split, most: int) -> dict[str, float]:
    """Returns the distances of labels between training rows and a split of the first file."""
    rows = space_rows(table.rows[side], most)
    train = space_rows(table.rows["train"], most)
    labels = list_label_columns(table)
    found = {}
    for label in labels:
        distance = compare(label.values[train], label.values[rows], label.numeric, len(labels))
        if distance is not None:
            found[label.name] = distance
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def compare(ours: np.ndarray, other: np.ndarray, numeric: bool, tests: int) -> float | None:
    """Returns the distance between two sets of values; None where chance explains it."""
    if not len(ours) or not len(other):
        return None
    if numeric:
        missing = [np.isnan(values).astype(int) for values in (ours, other)]
        known = [values[~np.isnan(values)] for values in (ours, other)]
        measured = [
            measure_numbers(known[0], known[1], 2 * tests),
            measure_classes(missing[0], missing[1], 2 * tests),
        ]
    else:
        codes = [np.nan_to_num(values, nan=-1).astype(int) + 1 for values in (ours, other)]
        measured = [measure_classes(codes[0], codes[1], tests)]
    far = [distance for distance, limit in measured if distance > max(limit, LEAST)]
    return max(far) if far else None


def report_inputs(table: Table, side: Split, far: dict[str, float]) -> Finding:
    """Returns a finding on inputs whose values differ between splits."""
    names = list(far)
    value = far[names[0]]
    sentence = (
        f"{side} rows are unlike training rows in {list_few(names)} (distance {value:.2f} of 1 in "
        f"'{names[0]}'): scores say how the model does on such rows"
    )
    effect = "leaves them out" if len(names) > 1 else "leaves it out"
    mend = mend_by_drop(table, names, effect)
    severity: Severity = "medium" if value >= LARGE else "low"
    return Finding(severity, "shift", sentence, mend, tuple(names), value=round(value, 4))


def report_labels(table: Table, side: Split, far: dict[str, float]) -> Finding:
    """Returns a finding on labels whose values differ between splits."""
    names = list(far)
    value = far[names[0]]
    sentence = (
        f"{side} labels are unlike training labels of {list_few(names)} "
        f"(distance {value:.2f} of 1 in '{names[0]}')"
    )
    mend = None
    # a split by a column, a group or time is what somebody wants
    at_random = not (table.group or table.split_column or table.time or table.stratify)
    columns = [column for name in names for column in table.targets.get(name, [name])]
    classes = all(table.labels[name].classes for name in names if name in table.labels)
    if at_random and classes and has_setting(table, "stratify"):
        mend = Mend((("stratify", write_list(columns)),), "deals them out in proportion")
    severity: Severity = "medium" if value >= LARGE else "low"
    return Finding(severity, "shift", sentence, mend, tuple(names), value=round(value, 4))
