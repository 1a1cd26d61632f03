"""Notes on what a person would check before training on a table; none of them stops a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from src.data.tables.columns import to_words
from src.data.tables.identifiers import (
    find_hidden_groups,
    find_identifiers,
    find_missing_codes,
    find_row_numbers,
)
from src.data.tables.leaking_inputs import find_leaking_inputs

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from src.data.rows import Split
    from src.data.tables.table import Table

FEWEST = 3  # training labels of a class before its absence elsewhere is worth a note


def find_suspicions(table: Table) -> list[str]:
    """Returns a line for each thing that is often a leak or a mistake."""
    return [
        *find_same_files(table),
        *find_repeated_rows(table),
        *find_leaking_inputs(table),
        *find_identifiers(table),
        *find_missing_codes(table),
        *find_odd_shares(table),
        *find_hidden_groups(table),
        *find_empty_classes(table),
    ]


def find_same_files(table: Table) -> list[str]:
    """Finds files with the same content that are given for two splits."""
    content: dict[str, str] = {}
    notes = []
    for role, record in table.table_files.records.items():
        before = content.setdefault(record["sha256"], role)
        if before != role:
            notes.append(
                f"note: the {before} and the {role} file are the same: "
                "its scores say nothing about new rows"
            )
    return notes


def find_repeated_rows(table: Table) -> list[str]:
    """Finds validation and test rows that are copies of training rows.

    Columns that name or number the rows do not count.
    """
    # a copied row usually has a new number
    numbering = {table.id, *table.dropped, *find_row_numbers(table)}
    columns = [str(name) for name in table.main.columns if name not in numbering]
    targets = {column for of_task in table.targets.values() for column in of_task}

    # without inputs, equal rows mean nothing
    if not set(columns) - targets:
        return []

    hashes = {}
    for role in table.table_files.paths:
        hashes[role] = hash_words(table.table_files.frame(role)[columns])
    trained = hashes["train"][table.rows["train"]]
    notes = []
    for name in ("val", "test"):
        rows = hashes["train"][table.rows[name]]
        if name in hashes:
            rows = np.concatenate([rows, hashes[name]])
        again = int(np.isin(rows, trained).sum())
        if again:
            share = f"{again} of {len(rows)} {name} rows ({again / len(rows):.0%})"
            notes.append(
                f"note: {share} are copies of training rows, which makes scores look better: "
                "drop them, or name the column of what they belong to: --data.group"
            )
    return notes


def hash_words(frame: pd.DataFrame) -> np.ndarray:
    """Hashes each row as it is written: (N,) uint64."""
    import pandas as pd

    return pd.util.hash_pandas_object(frame.apply(to_words), index=False).to_numpy()


def find_odd_shares(table: Table) -> list[str]:
    """Finds splits by few groups whose shares are far from those asked for."""
    if not table.group:
        return []
    asked = {"val": table.val_fraction, "test": table.test_fraction}
    far = []
    for name, wanted in asked.items():
        if name in table.table_files.paths:
            continue
        share = len(table.rows[name]) / len(table.main)
        if abs(share - wanted) > max(0.05, wanted / 3):
            far.append(f"{share:.0%} {name} rows, {wanted:.0%} asked for")
    if not far:
        return []
    groups = table.main[table.group].nunique()
    shares = " and ".join(far)
    return [f"note: {shares}: '{table.group}' has {groups} groups, which cannot be cut"]


def find_empty_classes(table: Table) -> list[str]:
    """Finds classes without a validation or test row, whose scores are not defined.

    A class with very few rows is not worth a note.
    """
    notes = []
    sides: tuple[Split, ...] = ("val", "test")
    for side in sides:
        lacking = find_lacking_classes(table, side)
        if not lacking:
            continue
        name, labels = next(iter(lacking.items()))
        others = len(lacking) - 1
        more = ""
        if others:
            more = f" (nor of classes of {others} other task{'s' if others > 1 else ''})"
        hint = ""
        if not (table.group or table.split_column or len(table.table_files.paths) > 1):
            hint = f"; --data.stratify '[{table.targets[name][0]}]' deals classes out in proportion"
        notes.append(
            f"note: no {side} row of '{name}' is of {', '.join(labels[:5])}{more}: "
            f"some scores are not defined{hint}"
        )
    return notes


def find_lacking_classes(table: Table, side: Split) -> dict[str, list[str]]:
    """Returns {task: classes that have training labels, but none on a side}."""
    targets = table.split(side).targets
    lacking = {}
    for name, task in table.tasks.items():
        classes = getattr(task, "classes", ())
        if not classes or not table.single[name]:
            continue
        counts = count_classes(table.encode_targets_of("train", name), len(classes))
        there = count_classes(targets[name], len(classes))
        found = [str(c) for i, c in enumerate(classes) if not there[i] and counts[i] >= FEWEST]
        if found:
            lacking[name] = found
    return lacking


def count_classes(targets: Tensor, classes: int) -> np.ndarray:
    """Returns the number of labels of each class, (classes,)."""
    numbers = targets.double().nan_to_num(-1).numpy().astype(int)
    return np.bincount(numbers[numbers >= 0], minlength=classes)
