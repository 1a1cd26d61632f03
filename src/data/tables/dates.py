"""Dates: one format for a column, found in its training rows, and the numbers of a date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from src.data.tables.numbers import BadValue, is_texts, mask_words_for_missing

if TYPE_CHECKING:
    import pandas as pd

ISO = "ISO8601"
DATE_PARTS = ("year", "month", "day", "day_of_week", "hour")
DAYS = (
    *("%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d.%m.%Y", "%m.%d.%Y", "%Y.%m.%d"),
    *("%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%d.%m.%y"),
    *("%d-%m-%y", "%m-%d-%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y"),
    *("%b %d %Y", "%B %d %Y", "%b %d, %Y", "%B %d, %Y", "%d. %B %Y", "%d. %b %Y"),
)
TIMES = (
    *("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f"),
    *(" %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", "T%H:%M"),
)
# a day, a month and a year in some order, or ISO's month of a year; but not 9-11, 08:30 or 1.2
DATE_LIKE = (
    r"\d{1,4}([-/. ]|\. )(\d{1,2}|[^\W\d]{3,9})[-/. ]\d{2,4}(\D.*)?"
    r"|[^\W\d]{3,9} \d{1,2},? \d{4}(\D.*)?"
    r"|\d{4}-\d{2}|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(\D.*)?"
)
CLOCK_OFFSET = r"(?<=\d)\s*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$"
FEW = 20  # texts that rule out most formats
SAMPLE = 200  # texts that tell whether a column may hold dates at all


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
        """Reads a column of dates as float64, with NaN for missing values.

        Raises:
            BadValue: A text is no date of this format.
        """
        dates = read_dates(series, self.format)
        return getattr(dates.dt, self.part).to_numpy(dtype=np.float64, na_value=np.nan)


def is_typed_date(series: pd.Series) -> bool:
    """Returns whether a typed file says that a column holds dates."""
    import pandas as pd

    return pd.api.types.is_datetime64_any_dtype(series)


def read_dates(series: pd.Series, form: str) -> pd.Series:
    """Reads a column of dates.

    Offsets from UTC are ignored, so that 08:30 is 08:30 in summer and in winter.

    Raises:
        BadValue: A text is no date of this format.
    """
    if is_typed_date(series):
        return series
    if not is_texts(series):
        # 20241231 as a number
        series = series.astype("str").str.replace(r"\.0+$", "", regex=True).where(series.notna())
    series = mask_words_for_missing(series)
    dates = parse_dates(series, form)
    wrong = (dates.isna() & series.notna()).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        wanted = "2024-12-31" if form == ISO else form
        raise BadValue(row, f"holds '{series.iloc[row]}' where a date such as {wanted} is expected")
    return dates


def parse_dates(series: pd.Series, form: str) -> pd.Series:
    """Parses texts as dates; NaT for texts of another format."""
    import pandas as pd

    return pd.to_datetime(remove_offsets(series), format=form, errors="coerce")


def remove_offsets(series: pd.Series) -> pd.Series:
    """Removes the offset from UTC from texts that have a clock time."""
    clock = series.str.contains(":", regex=False).to_numpy(dtype=bool, na_value=False)
    return series.str.replace(CLOCK_OFFSET, "", regex=True).where(clock, series)


def has_offsets(series: pd.Series) -> bool:
    """Returns whether some of the first dates have an offset from UTC."""
    texts = series.dropna().head(SAMPLE)
    return any(":" in text and re.search(CLOCK_OFFSET, text) for text in texts)


def find_date_formats(series: pd.Series) -> list[str]:
    """Returns the formats in which nine of ten known values of a column are dates.

    The likeliest comes first; there are none if the column holds no dates.
    """
    import pandas as pd

    if not is_texts(series):
        return []
    counts = mask_words_for_missing(series).value_counts()
    written = pd.Series(counts.index, dtype="str")
    times = counts.to_numpy()
    like = written.head(SAMPLE).str.fullmatch(DATE_LIKE).to_numpy(dtype=bool)
    if not len(like) or times[:SAMPLE][like].sum() < 0.9 * times[:SAMPLE].sum():
        return []
    texts = remove_offsets(written)

    def share(form: str, number: int) -> float:
        """Returns the share of values that are dates of a format, among the commonest texts."""
        fits = pd.to_datetime(texts.head(number), format=form, errors="coerce").notna().to_numpy()
        return float(times[:number][fits].sum() / times[:number].sum())

    # a few texts rule out nearly all formats
    few = texts.head(FEW).tolist()
    likely = [f for f in list_formats() if reads_any(few, f) and share(f, FEW) >= 0.5]
    shares = {form: share(form, len(texts)) for form in likely}
    best = max(shares.values(), default=0.0)
    found = [form for form, value in shares.items() if value == best and value >= 0.9]
    return [ISO] if ISO in found else found


def reads_any(texts: list[str], form: str) -> bool:
    """Returns whether some text may be a date of a format."""
    if form == ISO:
        return True

    # strptime has none of the overhead of a table library, which would be paid for each format
    for text in texts:
        try:
            datetime.strptime(text, form)
        except ValueError:
            continue
        return True
    return False


class MixedDates(NamedTuple):
    """Two values of a column of dates that no one format reads.

    Attributes:
        date: A date of the format that reads most.
        other: A text of another form.
        is_date: Whether this text is a date, too.
    """

    date: str
    other: str
    is_date: bool


def find_mixed_dates(series: pd.Series) -> MixedDates | None:
    """Returns an example if a column holds dates that no one format reads, else None."""
    import pandas as pd

    if not is_texts(series):
        return None
    distinct = mask_words_for_missing(series).dropna().unique()
    texts = pd.Series(distinct, dtype="str").head(FEW)
    if texts.empty or texts.str.fullmatch(DATE_LIKE).mean() < 0.9:
        return None

    likely = [form for form in list_formats() if reads_any(texts.tolist(), form)]
    read = [parse_dates(texts, form).notna().to_numpy() for form in likely]
    if np.any(read, axis=0).mean() < 0.9:
        return None
    best = max(read, key=np.sum)
    if best.all():
        return None

    # another date says more than a text that is none
    others = np.any(read, axis=0) & ~best
    shown = others if others.any() else ~best
    return MixedDates(texts[int(best.argmax())], texts[int(shown.argmax())], bool(others.any()))


def list_formats() -> Iterator[str]:
    """Yields every format that is tried."""
    yield ISO
    for day in DAYS:
        for time in TIMES:
            yield day + time
