"""Encoding of the input columns of a file, with remarks on how it differs from training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from src.data.rows import Inputs, Values
from src.data.tables.columns import (
    TABLE,
    Categorical,
    Column,
    MemberColumn,
    Numeric,
    name_member,
    to_words,
)
from src.data.tables.numbers import BadValue
from src.errors import UserError, suggest_or_list

if TYPE_CHECKING:
    import pandas as pd


def encode_inputs(
    columns: Sequence[Column], frame: pd.DataFrame, path: str, allow_missing: bool
) -> tuple[Inputs, list[str]]:
    """Encodes the rows of a file, and says how they differ from training.

    Args:
        columns: The encoder of each input column.
        frame: The rows.
        path: The file, for messages.
        allow_missing: Whether a column that is not there counts as missing in each row.

    Returns:
        'dense' (N, F) float32 and 'categorical' (N, C) int64 of a table; the inputs of a column
        that is an input of its own; or, of several inputs, all under their names. And the remarks,
        one line each.

    Raises:
        UserError: A column is not there, or holds a value that it cannot have.
    """
    remarks = []
    lacking = list(dict.fromkeys(c.source for c in columns if c.source not in frame.columns))
    if lacking and not allow_missing:
        hint = suggest_or_list(lacking[0], frame.columns)
        raise UserError(
            f"{path}: lacks the input column '{lacking[0]}' ({hint}); "
            "--allow_missing takes it for missing in each row"
        )
    if lacking:
        remarks.append(f"{path}: lacks {', '.join(lacking)}, taken for missing in each row")

    def get_series(column: Column) -> pd.Series:
        if column.source in lacking:
            return make_missing_column(column.source, len(frame))
        return frame[column.source]

    members: dict[str, Inputs] = {}
    of_table = [column for column in columns if not isinstance(column, MemberColumn)]
    if of_table or not columns:
        members[TABLE], notes = encode_table(of_table, get_series, path, len(frame))
        remarks += notes
    for column in columns:
        if isinstance(column, MemberColumn):
            series = get_series(column)
            with name_place(path, column, series):
                encoded, notes = column.encode(series, path)
            members[name_member(column)] = encoded
            remarks += [f"{path}: {note}" for note in notes]

    if len(members) == 1:
        return next(iter(members.values())), remarks
    named: dict[str, Values] = {}
    for name, inputs in members.items():
        own = inputs if isinstance(inputs, dict) else {"dense": inputs}
        named |= {f"{name}/{key}": values for key, values in own.items()}
    return named, remarks


def encode_table(
    columns: Sequence[Numeric | Categorical],
    get_series: Callable[[Column], pd.Series],
    path: str,
    rows: int,
) -> tuple[dict[str, Values], list[str]]:
    """Encodes numeric and categorical columns, as :func:`encode_inputs` does."""
    # the first arrays are empty, for tables without a column of their kind
    dense = [np.zeros((rows, 0), np.float32)]
    categorical = [np.zeros((rows, 0), np.int64)]
    remarks = []
    for column in columns:
        series = get_series(column)
        with name_place(path, column, series):
            values = column.encode(series)
        if isinstance(column, Numeric):
            dense.append(values)
        else:
            categorical.append(values[:, None])
            remarks += [f"{path}: {note}" for note in describe_unseen(column, series, values)]
    numbers = torch.from_numpy(np.concatenate(dense, 1))
    codes = torch.from_numpy(np.concatenate(categorical, 1))
    return {"dense": numbers, "categorical": codes}, remarks


def find_table_inputs(inputs: Inputs) -> dict[str, torch.Tensor]:
    """Returns the inputs of the numeric and categorical columns; empty where there are none."""
    found = {}
    for key in ("dense", "categorical"):
        values = inputs.get(f"{TABLE}/{key}", inputs.get(key)) if isinstance(inputs, dict) else None
        if isinstance(values, torch.Tensor):
            found[key] = values
    return found if "categorical" in found else {}


@contextmanager
def name_place(path: str, column: Column, series: pd.Series) -> Iterator[None]:
    """Adds the file, the row and the column to the message on an impossible value."""
    try:
        yield
    except BadValue as error:
        row = int(series.index[error.row]) + 1
        raise UserError(f"{path} row {row}: column '{column.column}' {error}") from None


def describe_unseen(column: Categorical, series: pd.Series, values: np.ndarray) -> list[str]:
    """Says how many rows have a word that training did not have; nothing if none has."""
    new = (values == 0) & series.notna().to_numpy()
    if not new.any():
        return []
    example = to_words(series).iloc[int(new.argmax())]
    return [
        f"{new.sum()} of {len(series)} rows have a '{column.column}' that training did not know, "
        f"such as '{example}'"
    ]


def make_missing_column(name: str, rows: int) -> pd.Series:
    """Returns a column in which each value is missing."""
    import pandas as pd

    return pd.Series([None] * rows, name=name, dtype="str")
