"""Rows that are copies of one another."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from src.data.tables.columns import to_words
from src.data.tables.numbers import read_typed_numbers

if TYPE_CHECKING:
    import pandas as pd

FEW = 500  # rows


def group_copies(frame: pd.DataFrame, left_out: Collection[str | None]) -> np.ndarray:
    """Returns a group for each row, the same for rows that are copies of one another: (N,) texts.

    Args:
        frame: The rows.
        left_out: Columns that do not count.
    """
    import pandas as pd

    columns = list_content_columns(frame, left_out)
    hashes = pd.util.hash_pandas_object(frame[columns].apply(to_words), index=False)
    groups: np.ndarray = hashes.astype("str").to_numpy(dtype=object)
    return groups


def list_content_columns(frame: pd.DataFrame, left_out: Collection[str | None]) -> list[str]:
    """Returns the columns of a table that neither name nor number its rows.

    A column with another word or whole number in each row names them: a copied row has a new one.

    Args:
        frame: The rows.
        left_out: Further columns that do not count.
    """
    candidates = [str(name) for name in frame.columns if name not in left_out]
    return [name for name in candidates if not names_rows(frame[name])]


def names_rows(series: pd.Series) -> bool:
    """Returns whether a column holds another word or whole number in each row."""
    # most columns repeat within a few rows
    for some in (series.head(FEW), series):
        known = int(some.notna().sum())
        if some.nunique() < known:
            return False
    if not known:
        return False
    numbers = read_typed_numbers(series)
    if numbers is None:
        # 0.25 in a file of texts is a measurement, too
        return not bool(to_words(series).str.contains(r"\d[.,]\d", na=False).any())
    whole = numbers[~np.isnan(numbers)]
    return bool((whole == np.floor(whole)).all())


def hash_words(series: pd.Series) -> np.ndarray:
    """Hashes the values of a column as they are written: (N,) uint64."""
    import pandas as pd

    return pd.util.hash_array(to_words(series).to_numpy(dtype=object, na_value=""))
