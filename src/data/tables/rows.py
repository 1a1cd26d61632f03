"""The names, splits and labels of a table's rows, for files of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from src.data.tables.columns import to_words
from src.data.tables.targets import read_values
from src.errors import UserError, suggest_or_list
from src.tasks import Counts, MultilabelClassification
from src.tasks.bounds import write_bound

if TYPE_CHECKING:
    from src.data.rows import Split
    from src.data.tables.table import Table


def identify_rows(table: Table, role: str, rows: np.ndarray) -> dict[str, list[Any]]:
    """Returns the names of some rows of a file, and their splits in the run.

    Args:
        table: The table.
        role: The role of the file.
        rows: (N,) row numbers.

    Returns:
        'id': the values of the column of names, or else row numbers, counted from 1. 'split': the
        side of each row; new rows have none.
    """
    frame = table.table_files.frame(role)
    names: list[Any] = (frame.index[rows] + 1).tolist()
    if table.id and table.id in frame.columns:
        ids = frame[table.id].iloc[rows]
        names = ids.astype(object).where(ids.notna(), None).tolist()
    if table.is_new:
        return {"id": names}
    side = np.full(len(frame), role, dtype="<U5")
    if role == "train":
        for split, numbers in table.rows.items():
            side[numbers] = split
    return {"id": names, "split": side[rows].tolist()}


def find_rows(table: Table, name: Split) -> dict[str, np.ndarray]:
    """Returns the rows of a split as {role of a file: row numbers}."""
    sections = {"train": table.rows[name]} if len(table.rows[name]) else {}
    if name != "train" and name in table.table_files.paths:
        sections[name] = np.arange(len(table.table_files.frame(name)))
    return {role: table.keep_usable(role, rows) for role, rows in sections.items()}


def read_words(table: Table, name: Split, column: str) -> list[str | None]:
    """Returns a column of the rows of a split as words, in their order; None where missing.

    Raises:
        UserError: A file has no such column.
    """
    if name == "predict":
        every = np.arange(len(table.table_files.frame()))
        sections = {"train": table.keep_usable("train", every)}
    else:
        sections = find_rows(table, name)
    found: list[str | None] = []
    for role, rows in sections.items():
        frame = table.table_files.frame(role)
        if column not in frame.columns:
            path = table.table_files.paths[role]
            raise UserError(
                f"{path}: has no column '{column}'; {suggest_or_list(column, list(frame.columns))}"
            )
        words = to_words(frame[column].iloc[rows])
        found += words.astype(object).where(words.notna(), None).tolist()
    return found


def write_whole(numbers: np.ndarray) -> list[int | None]:
    """Returns whole numbers (N,) without decimals, None where missing."""
    return [None if np.isnan(number) else int(number) for number in numbers]


def write_label(label: Any) -> str | None:
    """Returns a number or a bound as a text, None where missing."""
    return write_bound(label, 0.0, digits=15) if isinstance(label, float) else label


def read_labels(table: Table, name: Split) -> dict[str, dict[str, list[Any]]]:
    """Returns the labels of a split as they are written in the files.

    Returns:
        {task: {suffix: values}}; for a task given as one column the suffix is ''.
    """
    sections = find_rows(table, name)
    found: dict[str, dict[str, list[Any]]] = {}
    for task, labels in table.labels.items():
        kind = table.tasks[task]
        read = []
        for role, rows in sections.items():
            read.append(read_values(kind, labels, table.table_files.frame(role).iloc[rows]))
        values = np.concatenate(read).reshape(-1, len(labels.columns))

        # the first column of a label with an exposure is the target's own
        suffixes = ("",) if labels.single else labels.columns
        if kind.column_settings:
            suffixes = ("", *labels.columns[1:])
        found[task] = {}
        for suffix, column in zip(suffixes, values.T, strict=True):
            # predictions have 1 and 0, not 1.0 and 0.0
            is_whole = isinstance(kind, MultilabelClassification)
            is_whole |= isinstance(kind, Counts) and not suffix
            found[task][suffix] = write_whole(column) if is_whole else column.tolist()
        if "bound" in kind.label_forms:
            # texts among numbers are texts, as a typed file needs them
            found[task] = {key: list(map(write_label, own)) for key, own in found[task].items()}
    return found
