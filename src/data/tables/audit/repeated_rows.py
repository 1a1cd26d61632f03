"""Rows of validation and test that are rows of the training split, too, or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import TYPE_CHECKING

import numpy as np
import torch

from src.data.audit.finding import Finding, Mend, weigh_share, write_share
from src.data.audit.near_copies import find_near_copies
from src.data.rows import Split
from src.data.tables.audit.input_columns import has_setting
from src.data.tables.audit.leaking_inputs import space_rows
from src.data.tables.copies import hash_words, list_content_columns
from src.data.tables.files import ROLES
from src.data.tables.input_encoding import find_table_inputs
from src.data.tables.record import hash_rows

if TYPE_CHECKING:
    import pandas as pd

    from src.data.tables.table import Table

SIDES: tuple[Split, ...] = ("val", "test")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
BY_CHANCE = 3.0  # columns depend on one another, which makes equal rows likelier
UNLIKELY = 1e-3  # probability of as many copies by chance
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
    ours = hash_columns(table.main, columns)
    trained = [hashes[table.rows["train"]] for hashes in ours]
    findings = []
    for side in SIDES:
        of_main = space_rows(table.rows[side], most)
        others = [hashes[of_main] for hashes in ours]
        if side in table.table_files.paths:
            frame = table.table_files.frame(side)
            more = hash_columns(frame.iloc[space_rows(np.arange(len(frame)), most)], columns)
            others = [np.concatenate(pair) for pair in zip(others, more, strict=True)]
        count = len(others[0])
        if not count:
            continue
        again = find_equal(trained, others)
        if not again.any() or is_chance(int(again.sum()), trained, others):
            continue
        copied = of_main[again[: len(of_main)]]
        findings.append(report_copies(table, side, int(again.sum()), count, copied))
    return findings


def hash_columns(frame: pd.DataFrame, columns: Sequence[str]) -> list[np.ndarray]:
    """Hashes the values of each column as they are written: (N,) uint64 each."""
    return [hash_words(frame[name]) for name in columns]


def find_equal(trained: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """Returns which rows equal some training row: bool (M,).

    Args:
        trained: (N,) hashes of each column of the training rows.
        others: (M,) hashes of each column of the rows to check.
    """
    ours = np.zeros(len(trained[0]), dtype=np.uint64)
    theirs = np.zeros(len(others[0]), dtype=np.uint64)
    for column, other in zip(trained, others, strict=True):
        ours = mix(ours, column)
        theirs = mix(theirs, other)
    return np.isin(theirs, ours)


def mix(hashes: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Returns hashes of rows with one column more: the order of columns counts."""
    mixed: np.ndarray = hashes * MULTIPLIER + more
    return mixed ^ (mixed >> np.uint64(29))


def is_chance(again: int, trained: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    """Returns whether as many copies come about where columns have nothing to do with one another.

    Two rows are then equal with the product of the probabilities that they are in each column.

    Args:
        again: The number of copies.
        trained: (N,) hashes of each column of the training rows.
        others: (M,) hashes of each column of the rows to check.
    """
    equal = 1.0
    for column, other in zip(trained, others, strict=True):
        values, counts = np.unique(column, return_counts=True)
        place = np.searchsorted(values, other).clip(max=len(values) - 1)
        equal *= float(np.where(values[place] == other, counts[place], 0).mean() / len(column))
    expected = BY_CHANCE * len(others[0]) * min(1.0, len(trained[0]) * equal)

    # the probability of so large a number, of Poisson: its sum up to one below
    term = below = exp(-expected)
    for number in range(1, again):
        term *= expected / number
        below += term
    return expected >= again or 1 - below > UNLIKELY


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
    for side in SIDES:
        sections = {"train": space_rows(table.rows[side], most)}
        if side in table.table_files.paths:
            every = np.arange(len(table.table_files.frame(side)))
            sections[side] = space_rows(every, most)
        for role, rows in sections.items():
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
