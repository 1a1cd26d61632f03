"""Times of rows, and the split by time: the earliest rows train, the latest test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from src.data.tables.dates import find_date_formats, is_typed_date, read_dates
from src.data.tables.number_formats import fit_formats
from src.data.tables.numbers import BadValue, is_texts, read_typed_numbers
from src.data.tables.splits import SIDE

if TYPE_CHECKING:
    import pandas as pd


def read_times(series: pd.Series, date_format: str | None = None) -> tuple[np.ndarray, bool]:
    """Reads a column of dates, in days, or of numbers.

    Args:
        series: The column.
        date_format: How dates are written, where the column does not tell.

    Returns:
        (N,) float64, NaN where missing; and whether they are dates.

    Raises:
        BadValue: It holds neither.
    """
    numbers = read_typed_numbers(series)
    if numbers is not None:
        return numbers, False
    formats = [date_format] if date_format is not None else find_date_formats(series)
    if is_typed_date(series) or formats:
        # two formats that fit alike need a setting, but either has an order
        dates = read_dates(series, formats[0] if formats else "")
        seconds = dates.to_numpy(dtype="datetime64[s]").astype(np.float64)
        return np.where(dates.isna(), np.nan, seconds / 86400), True
    if is_texts(series):
        fitting = fit_formats(series, None, None)
        for form, share in fitting.items():
            if share == 1:
                return form.numbers(series), False
    raise BadValue(0, "holds neither dates nor numbers")


def split_by_time(times: np.ndarray, val: float, test: float) -> np.ndarray:
    """Splits rows by time; rows of one time stay on one side.

    Args:
        times: (rows,) numbers.
        val: Share of the rows that validates.
        test: Share of the rows that tests, the latest.

    Returns:
        (rows,) of 'train', 'val' or 'test'.
    """
    _, places, counts = np.unique(times, return_inverse=True, return_counts=True)

    # a time goes to the side on which its middle row falls
    middle = np.cumsum(counts) - counts / 2
    trains = (1 - val - test) * len(times)
    not_test = np.where(middle < trains, "train", "val")
    side = np.where(middle < (1 - test) * len(times), not_test, "test")
    return side[places].astype(SIDE)
