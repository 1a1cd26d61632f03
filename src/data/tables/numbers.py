"""Numbers as people write them: a decimal comma, marks between thousands, a currency, a percent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

EXPONENT = r"(?:[eE][-+]?\d+)?"
# no-break, thin and narrow spaces, which spreadsheets put between thousands
SPACES = "\u00a0\u2009\u202f"
TRUTH = {"true": 1.0, "false": 0.0}
# other rows of a column of true and false may have these
TRUTH_AS_NUMBERS = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
# In lower case. Among numbers and dates they mean that a value is missing; among words they are
# words.
WORDS_FOR_MISSING = {
    *("-", "--", "---", "\u2013", "\u2014", ".", "..", "...", "?", "*"),
    *("na", "n/a", "n.a.", "n.a", "n/d", "n.d.", "nd", "nan", "nil", "none", "null"),
    *("#n/a", "#na", "#null!", "#value!", "#div/0!", "<na>"),
}


class BadValue(UserError):
    """A value that its column cannot have.

    Attributes:
        row: Its row, counted from 0.
    """

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class NumberFormat:
    """How the numbers of one column are written.

    Attributes:
        decimal: The mark before decimals: a dot or a comma.
        thousands: The mark between thousands: '', a comma, a dot, a space or an apostrophe.
        unit: A currency or a percent sign next to the numbers, which is left out; '' for none.
        truth: Whether the column holds the words true and false, which count as 1 and 0.
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    truth: bool = False

    @property
    def plain(self) -> bool:
        """Whether numbers are written as programs write them."""
        return self == NumberFormat()

    def __str__(self) -> str:
        """Returns what differs from plain numbers, in words."""
        if self.truth:
            return "true and false as 1 and 0"
        marks = []
        if self.thousands:
            marks.append(f"'{self.thousands}' between thousands")
        if self.decimal != ".":
            marks.append(f"a decimal '{self.decimal}'")
        if self.unit:
            marks.append(f"the unit '{self.unit}' left out")
        return " and ".join(marks) or "plain numbers"

    @property
    def pattern(self) -> str:
        """A regular expression for one number without its unit."""
        d = re.escape(self.decimal)
        whole = r"\d+"
        if self.thousands:
            # no group of thousands begins with 0: 0,942 has decimals
            whole = rf"(?:[1-9]\d{{0,2}}(?:{re.escape(self.thousands)}\d{{3}})+|\d+)"
        return rf"[-+]?(?:{whole}(?:{d}\d*)?|{d}\d+){EXPONENT}"

    def read_texts(self, texts: pd.Series) -> np.ndarray:
        """Reads known texts as float64; NaN where a text is no number of this format."""
        import pandas as pd

        if self.truth:
            values = texts.str.lower().map(TRUTH | TRUTH_AS_NUMBERS)
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        if self.plain:
            return read_plain_numbers(texts)
        bare = remove_unit(normalise_marks(texts), self.unit)
        fits = bare.str.fullmatch(self.pattern).to_numpy(dtype=bool, na_value=False)
        if self.thousands:
            bare = bare.str.replace(self.thousands, "", regex=False)
        if self.decimal != ".":
            bare = bare.str.replace(self.decimal, ".", regex=False)
        numbers = pd.to_numeric(bare.where(fits), errors="coerce")
        return numbers.to_numpy(dtype=np.float64, na_value=np.nan)

    def numbers(self, series: pd.Series) -> np.ndarray:
        """Reads a column of texts or of numbers as float64, with NaN for missing values.

        Raises:
            BadValue: A text is no number, or a number is too large for single precision.
        """
        numbers = read_typed_numbers(series)
        if numbers is None and not is_texts(series):
            numbers = np.full(len(series), np.nan)
            if series.notna().any():
                row = int(series.notna().to_numpy().argmax())
                raise BadValue(row, f"holds '{series.iloc[row]}' where a number is expected")
        if numbers is None and self.plain:
            numbers = read_all_plain(series)
        if numbers is None:
            numbers = self._read_known_texts(series)

        # networks compute in single precision
        with np.errstate(invalid="ignore"):
            beyond = np.abs(numbers) > np.finfo(np.float32).max
        if beyond.any():
            row = int(beyond.argmax())
            if np.isinf(numbers[row]):
                raise BadValue(row, f"holds {numbers[row]}, which is not finite")
            raise BadValue(
                row, f"holds {numbers[row]:g}, which is beyond single precision: not finite there"
            )
        return numbers

    def _read_known_texts(self, series: pd.Series) -> np.ndarray:
        series = mask_words_for_missing(series)
        known = series.notna().to_numpy()
        numbers = np.full(len(series), np.nan)
        numbers[known] = self.read_texts(series[known])
        text = np.isnan(numbers) & known
        if text.any():
            row = int(text.argmax())
            form = "" if self.plain else f" ({self})"
            raise BadValue(row, f"holds '{series.iloc[row]}' where a number is expected{form}")
        return numbers


def is_texts(series: pd.Series) -> bool:
    """Returns whether a column holds texts, and not the numbers or dates of a typed file."""
    return series.dtype == "str"


def mask_words_for_missing(series: pd.Series) -> pd.Series:
    """Masks the texts of a column of numbers or dates that mean that a value is missing."""
    missing = series.str.lower().isin(WORDS_FOR_MISSING)
    return series.mask(missing) if missing.any() else series


def describe_words_for_missing(series: pd.Series) -> str:
    """Says which words of a column of numbers count as missing; '' where there are none."""
    if not is_texts(series) or read_all_plain(series) is not None:
        return ""
    found = series[series.str.lower().isin(WORDS_FOR_MISSING)].value_counts()
    words = ", ".join(f"'{word}'" for word in found.index)
    return f"{words} in {found.sum()} rows counts as missing" if len(found) else ""


def read_typed_numbers(series: pd.Series) -> np.ndarray | None:
    """Returns the numbers of a column of a typed file; None for texts or dates."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(series):
        return series.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    return None


def read_all_plain(texts: pd.Series) -> np.ndarray | None:
    """Reads numbers as programs write them; None if a text is no such number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # arrow is several times as fast as pandas, but fails as a whole
    try:
        numbers = pc.cast(pa.array(texts, type=pa.large_string()), pa.float64())
    except pa.ArrowInvalid:
        return None
    return np.array(numbers.to_numpy(zero_copy_only=False))


def read_plain_numbers(texts: pd.Series) -> np.ndarray:
    """Reads numbers as programs write them; NaN for other texts."""
    import pandas as pd

    numbers = read_all_plain(texts)
    if numbers is not None:
        return numbers
    plain = rf"\s*(?:{NumberFormat().pattern}|[-+]?inf(?:inity)?)\s*"
    wanted = texts.where(texts.str.fullmatch(plain, case=False).astype(bool))
    return pd.to_numeric(wanted, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def normalise_marks(texts: pd.Series) -> pd.Series:
    """Writes all kinds of spaces, apostrophes and minus signs in one way.

    A number in brackets, as bookkeepers write it, becomes negative.
    """
    texts = texts.str.replace(rf"[{SPACES}]", " ", regex=True)
    texts = texts.str.replace("\u2019", "'", regex=False)
    texts = texts.str.replace("\u2212", "-", regex=False)
    return texts.str.replace(r"^\((.*)\)$", r"-\1", regex=True)


def remove_unit(texts: pd.Series, unit: str) -> pd.Series:
    """Removes a unit before or after the number."""
    if not unit:
        return texts
    word = re.escape(unit)
    texts = texts.str.replace(rf"^([-+]?)\s*{word}\s*", r"\1", regex=True)
    return texts.str.replace(rf"\s*{word}$", "", regex=True)
