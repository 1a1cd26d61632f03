"""Rows of validation and test that are rows of the training split, too, or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from src.data.audit.finding import Finding, Mend, weigh_share, write_share
from src.data.audit.near_copies import find_near_copies
from src.data.tables.audit.input_columns import has_setting
from src.data.tables.audit.leaking_inputs import space_rows
from src.data.tables.copies import hash_words, list_content_columns
from src.data.tables.files import ROLES
from src.data.tables.input_encoding import find_table_inputs
from src.data.tables.record import hash_rows

if TYPE_CHECKING:
    import pandas as pd

    from src.data.rows import Split
    from src.data.tables.table import Table

BY_CHANCE = 3.0  # times as many copies as columns of the same values, shuffled, have by chance
SHOWN = 5  # rows that are named


def find_same_files(table: Table) -> list[Finding]:
    """Finds files with the same content that are given for two splits."""
    content: dict[str, str] = {}
    findings = []
    for role, record in table.table_files.records.items():
        before = content.setdefault(record["sha256"], role)
        if before != role:
            sentence = (
                f"the {before} and the {role} file are the same: "
                "its scores say nothing about new rows"
            )
            mend = None
            if has_setting(table, ROLES[role]):
                mend = Mend(((ROLES[role], "null"),), "splits rows off instead")
            findings.append(Finding("high", "copies", sentence, mend))
    return findings


def find_repeated_rows(table: Table, most: int) -> list[Finding]:
    """Finds validation and test rows that are copies of training rows.

    Columns that name or number the rows do not count, and neither does what chance explains: where
    a few columns have a few values, most rows come again.

    Args:
        table: The table.
        most: Most validation rows, and test rows, that are compared with all training rows.
    """
    columns = list_content_columns(table.main, [table.id, table.split_column])
    targets = {column for of_task in table.targets.values() for column in of_task}

    # without inputs, equal rows mean nothing
    if not set(columns) - targets:
        return []
    findings = []
    trained = table.main[columns].iloc[table.rows["train"]]
    for side in ("val", "test"):
        rows = list_rows(table, side, most)
        count = sum(len(numbers) for _, numbers in rows)
        if not count:
            continue
        found = compare_rows(table, columns, trained, rows)
        again = sum(len(numbers) for numbers in found.values())
        if not again or again / count < BY_CHANCE * estimate_chance(table, columns, rows):
            continue
        of_main = found.get("train", np.zeros(0, dtype=np.int64))
        findings.append(report_copies(table, side, again, count, of_main))
    return findings


def list_rows(table: Table, side: Split, most: int) -> list[tuple[str, np.ndarray]]:
    """Returns rows of a split, evenly spaced, as (role of a file, row numbers)."""
    sections = [("train", space_rows(table.rows[side], most))]
    if side in table.table_files.paths:
        every = np.arange(len(table.table_files.frame(side)))
        sections.append((side, space_rows(every, most)))
    return sections


def compare_rows(
    table: Table,
    columns: Sequence[str],
    trained: pd.DataFrame,
    rows: Sequence[tuple[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Finds rows that are training rows, too: {role of a file: row numbers}.

    Columns are read one by one, and only in training rows that are still like some row.
    """
    found = {}
    for role, numbers in rows:
        theirs = table.table_files.frame(role)[list(columns)].iloc[numbers]
        found[role] = numbers[find_equal(trained, theirs)]
    return found


def find_equal(trained: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """Returns which rows equal some training row: bool (M,)."""
    ours = np.zeros(len(trained), dtype=np.uint64)
    theirs = np.zeros(len(others), dtype=np.uint64)
    left = np.arange(len(trained))
    for name in trained.columns:
        ours = mix(ours, hash_words(trained[name].iloc[left]))
        theirs = mix(theirs, hash_words(others[name]))
        alike = np.isin(ours, theirs)
        ours, left = ours[alike], left[alike]
    return np.isin(theirs, ours)


def mix(hashes: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Returns hashes of more columns: the order of columns counts."""
    mixed: np.ndarray = hashes * np.uint64(0x9E3779B97F4A7C15) + more
    return mixed ^ (mixed >> np.uint64(29))


def estimate_chance(
    table: Table, columns: Sequence[str], rows: Sequence[tuple[str, np.ndarray]]
) -> float:
    """Returns the share of copies if columns had their values without regard to one another."""
    rng = np.random.default_rng(0)
    train = table.main[list(columns)].iloc[table.rows["train"]]
    shuffled = train.copy()
    for name in columns:
        shuffled[name] = train[name].to_numpy()[rng.permutation(len(train))]
    again = count = 0
    for role, numbers in rows:
        others = table.table_files.frame(role)[list(columns)].iloc[numbers].copy()
        for name in columns:
            others[name] = others[name].to_numpy()[rng.permutation(len(others))]
        again += int(find_equal(shuffled, others).sum())
        count += len(numbers)
    return again / max(count, 1)


def report_copies(table: Table, side: Split, again: int, count: int, rows: np.ndarray) -> Finding:
    """Returns a finding on rows of a split that are training rows, too.

    Args:
        table: The table.
        side: The split.
        again: Number of its rows that are copies.
        count: Number of its rows that were looked at.
        rows: Row numbers of copies in the first file.
    """
    share = again / count
    sentence = (
        f"{again} of {count} {side} rows ({write_share(share)}) are copies of training rows, "
        "which makes scores look better"
    )
    mend = None
    if len(rows) and has_setting(table, "keep_copies_together"):
        settings = [("keep_copies_together", "true")]
        if table.stratify:
            settings.append(("stratify", "null"))
        if not (table.group or table.split_column or table.time):
            mend = Mend(tuple(settings), "puts copies on one side")
    elif not len(rows):
        sentence += f"; they lie in {table.table_files.paths[side]}, and no split moves them"
    shown = tuple((rows[:SHOWN] + 1).tolist())
    return Finding(weigh_share(share), "copies", sentence, mend, (), shown, round(share, 4))


def find_nearly_repeated_rows(table: Table, most: int) -> list[Finding]:
    """Finds validation and test rows that are training rows with a little noise.

    Args:
        table: The table.
        most: Most validation rows, and test rows, that are compared; of training rows ten times as
            many.
    """
    encoded = find_table_inputs(table.encode_inputs_of("train"))
    if not encoded:
        return []
    train = space_rows(table.rows["train"], 10 * most)
    findings = []
    for side in ("val", "test"):
        for role, rows in list_rows(table, side, most):
            others = find_table_inputs(table.encode_inputs_of(role))
            kinds = (
                hash_rows(encoded["categorical"][torch.from_numpy(train)]),
                hash_rows(others["categorical"][torch.from_numpy(rows)]),
            )
            near = find_near_copies(
                encoded["dense"][torch.from_numpy(train)],
                others["dense"][torch.from_numpy(rows)],
                kinds,
            )
            if not len(near):
                continue
            share = len(near) / len(rows)
            severity = weigh_share(share)
            sentence = (
                f"{len(near)} of {len(rows)} {side} rows ({write_share(share)}) are almost "
                "training rows: if both are of one person or thing, name the column that tells "
                "it, as in --data.group COLUMN, or leave out one of them"
            )
            shown = tuple((rows[near][:SHOWN] + 1).tolist())
            findings.append(
                Finding(severity, "near copies", sentence, None, (), shown, round(share, 4))
            )
    return findings
