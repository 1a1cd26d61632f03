"""Descriptions of a table for people: its tasks, inputs and rows, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.data.tables.columns import Column, MemberColumn, Numeric, name_kind
from src.data.tables.record import hash_rows
from src.data.tables.rows import find_rows

if TYPE_CHECKING:
    from src.data.tables.table import Table


def describe_table(table: Table, reasons: Mapping[str, str]) -> list[str]:
    """Returns a line for each task, for the inputs, for each dropped column, and for the rows.

    Args:
        table: The table.
        reasons: {task: why it is of its kind}; empty if a schema says so.
    """
    notes = []
    for name, task in table.tasks.items():
        reason = reasons.get(name, "as in the schema")
        notes.append(f"task {name}: {type(task).__name__} ({reason})")
    notes.append(f"inputs: {describe_columns(table.columns)}")
    notes += [f"dropped {name}: {reason}" for name, reason in table.dropped.items()]
    notes += table.table_files.notes()

    train = len(table.split("train"))
    val = len(table.split("val"))
    test = len(table.split("test"))
    fold = ""
    if table.folds is not None:
        fold = f" (fold {table.fold} of 0 to {table.folds - 1})"
    return [*notes, f"rows: {train} to train, {val} to validate, {test} to test{fold}"]


def describe_columns(columns: Sequence[Column]) -> str:
    """Counts the input columns, and names the ones that are inputs of their own."""
    members = [column for column in columns if isinstance(column, MemberColumn)]
    named = [f"{name_kind(type(column))} '{column.column}'" for column in members]
    numeric = sum(isinstance(column, Numeric) for column in columns)
    categorical = len(columns) - len(members) - numeric
    if numeric or categorical:
        named.insert(0, f"{numeric} numeric and {categorical} categorical columns")
    return ", ".join(named)


def describe_new_rows(table: Table) -> str:
    """Describes new rows, and counts those whose inputs are known from training rows."""
    hashes = hash_rows(table.encode_inputs_of("train"))
    again = int(np.isin(hashes, table.table_files.training_hashes()).sum())
    # counted without their labels, which new rows may lack
    rows = sum(len(numbers) for numbers in find_rows(table, "test").values())
    seen = f"; {again} of them have the inputs of rows that the run was trained on" if again else ""
    return f"all {rows} rows of {table.path}, a file that is not the run's{seen}"
