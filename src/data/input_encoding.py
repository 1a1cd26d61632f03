"""Encoding of the input columns of a file, with remarks on how it differs from training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from src.data.columns import Categorical, Column, Numeric, to_words
from src.data.numbers import BadValue
from src.errors import UserError, suggest_or_list

if TYPE_CHECKING:
    import pandas as pd


def encode_inputs(
    columns: Sequence[Column], frame: pd.DataFrame, path: str, allow_missing: bool
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Encodes the rows of a file, and says how they differ from training.

    Args:
        columns: The encoder of each input column.
        frame: The rows.
        path: The file, for messages.
        allow_missing: Whether a column that is not there counts as missing in each row.

    Returns:
        'dense' (N, F) float32 and 'categorical' (N, C) int64; and the remarks, one line each.

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

    # the first arrays are empty, for tables without a column of their kind
    dense = [np.zeros((len(frame), 0), np.float32)]
    categorical = [np.zeros((len(frame), 0), np.int64)]
    for column in columns:
        if column.source in lacking:
            series = make_missing_column(column.source, len(frame))
        else:
            series = frame[column.source]
        try:
            values = column.encode(series)
        except BadValue as error:
            raise UserError(
                f"{path} row {error.row + 1}: column '{column.column}' {error}"
            ) from None
        if isinstance(column, Numeric):
            dense.append(values)
        else:
            categorical.append(values[:, None])
            remarks += [f"{path}: {note}" for note in describe_unseen(column, series, values)]
    numbers = torch.from_numpy(np.concatenate(dense, 1))
    codes = torch.from_numpy(np.concatenate(categorical, 1))
    return {"dense": numbers, "categorical": codes}, remarks


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
