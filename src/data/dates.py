"""Dates: one format for a column, found in its training rows, and the numbers that a date becomes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from src.data.numbers import BadValue, is_texts, without_words_for_none

if TYPE_CHECKING:
    import pandas as pd

ISO = "ISO8601"
DATE_PARTS = ("year", "month", "day", "day_of_week", "hour")
DAYS = (
    *(
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%Y/%m/%d",
        "%d.%m.%Y",
        "%m.%d.%Y",
        "%Y.%m.%d",
        "%d-%m-%Y",
        "%m-%d-%Y",
    ),
    *(
        "%d/%m/%y",
        "%m/%d/%y",
        "%y/%m/%d",
        "%d.%m.%y",
        "%d-%m-%y",
        "%m-%d-%y",
        "%d-%b-%Y",
        "%d-%b-%y",
    ),
    *(
        "%d %b %Y",
        "%d %B %Y",
        "%b %d %Y",
        "%B %d %Y",
        "%b %d, %Y",
        "%B %d, %Y",
        "%d. %B %Y",
        "%d. %b %Y",
    ),
)
TIMES = (
    "",
    " %H:%M",
    " %H:%M:%S",
    " %H:%M:%S.%f",
    " %I:%M %p",
    " %I:%M:%S %p",
    "T%H:%M:%S",
    "T%H:%M",
)
# a day, a month and a year in some order, or a month of a year as ISO has it; no 9-11, 08:30 or 1.2
DATE_LIKE = (
    r"\d{1,4}([-/. ]|\. )(\d{1,2}|[^\W\d]{3,9})[-/. ]\d{2,4}(\D.*)?"
    r"|[^\W\d]{3,9} \d{1,2},? \d{4}(\D.*)?"
    r"|\d{4}-\d{2}|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(\D.*)?"
)
CLOCK_OFFSET = r"(?<=\d)\s*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$"
FEW, SAMPLE = 20, 200


@dataclass(frozen=True)
class DatePart:
    """One number of a date: its year, month, day, day of the week or hour, by the clock as written.

    Attributes:
        format: How dates are written: a format of strftime, or ISO8601.
        part: Which number, one of ``DATE_PARTS``.
    """

    format: str
    part: str

    def numbers(self, series: pd.Series) -> np.ndarray:
        """Reads a column of dates as float64 with NaN for missing values.

        Raises:
            BadValue: A text that is no date of this format.
        """
        dates = read_dates(series, self.format)
        return getattr(dates.dt, self.part).to_numpy(dtype=np.float64, na_value=np.nan)


def is_typed_date(series: pd.Series) -> bool:
    """Whether a typed file says that a column holds dates."""
    import pandas as pd

    return pd.api.types.is_datetime64_any_dtype(series)


def read_dates(series: pd.Series, form: str) -> pd.Series:
    """Reads a column of dates; offsets from UTC are left out, so that 08:30 is 08:30 in summer and winter.

    Raises:
        BadValue: A text that is no date of this format.
    """
    if is_typed_date(series):
        return series
    if not is_texts(series):  # 20241231 as a number
        series = series.astype("str").str.replace(r"\.0+$", "", regex=True).where(series.notna())
    series = without_words_for_none(series)
    dates = parsed(series, form)
    wrong = (dates.isna() & series.notna()).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        wanted = "2024-12-31" if form == ISO else form
        raise BadValue(row, f"holds '{series.iloc[row]}' where a date such as {wanted} is expected")
    return dates


def parsed(series: pd.Series, form: str) -> pd.Series:
    """Texts as dates, NaT for those of another format."""
    import pandas as pd

    return pd.to_datetime(without_offsets(series), format=form, errors="coerce")


def without_offsets(series: pd.Series) -> pd.Series:
    """Texts of dates, the clock's offset from UTC cut off."""
    clock = series.str.contains(":", regex=False).to_numpy(dtype=bool, na_value=False)
    return series.str.replace(CLOCK_OFFSET, "", regex=True).where(clock, series)


def date_formats(series: pd.Series) -> list[str]:
    """The formats in which nine of ten known values of a column are dates, the likeliest first; none if it holds no dates."""
    import pandas as pd

    if not is_texts(series):
        return []
    counts = without_words_for_none(series).value_counts()
    written = pd.Series(counts.index, dtype="str")
    like = written.head(SAMPLE).str.fullmatch(DATE_LIKE).to_numpy(dtype=bool)
    times = counts.to_numpy()
    if not len(like) or times[:SAMPLE][like].sum() < 0.9 * times[:SAMPLE].sum():
        return []
    texts = without_offsets(written)

    def share(form: str, number: int) -> float:
        fits = pd.to_datetime(texts.head(number), format=form, errors="coerce").notna().to_numpy()
        return float(times[:number][fits].sum() / times[:number].sum())

    # a few texts rule out nearly all formats
    few = texts.head(FEW).tolist()
    likely = [form for form in candidates() if reads_any(few, form) and share(form, FEW) >= 0.5]
    shares = {form: share(form, len(texts)) for form in likely}
    best = max(shares.values(), default=0.0)
    found = [form for form, value in shares.items() if value == best and value >= 0.9]
    return [ISO] if ISO in found else found


def reads_any(texts: list[str], form: str) -> bool:
    """Whether some text may be a date of a format, found without the overhead of a table library."""
    if form == ISO:
        return True
    for text in texts:
        try:
            datetime.strptime(text, form)
        except ValueError:
            continue
        return True
    return False


def several_forms(series: pd.Series) -> tuple[str, str, bool] | None:
    """Finds a column of dates that no one format reads.

    Returns:
        A date, a text of another form, and whether that is a date, too; None if it is no such
        column.
    """
    import pandas as pd

    if not is_texts(series):
        return None
    texts = pd.Series(without_words_for_none(series).dropna().unique(), dtype="str").head(FEW)
    if texts.empty or texts.str.fullmatch(DATE_LIKE).mean() < 0.9:
        return None
    read = [
        parsed(texts, form).notna().to_numpy()
        for form in candidates()
        if reads_any(texts.tolist(), form)
    ]
    if np.any(read, axis=0).mean() < 0.9:
        return None
    best = max(read, key=np.sum)
    if best.all():
        return None
    others = np.any(read, axis=0) & ~best
    return (
        texts[int(best.argmax())],
        texts[int((others if others.any() else ~best).argmax())],
        bool(others.any()),
    )


def candidates() -> Iterator[str]:
    """Yields every format that is tried."""
    yield ISO
    for day in DAYS:
        for time in TIMES:
            yield day + time


def has_offsets(series: pd.Series) -> bool:
    """Whether a clock's offset from UTC stands behind some of the first dates."""
    texts = series.dropna().head(SAMPLE)
    return any(":" in text and re.search(CLOCK_OFFSET, text) for text in texts)
