"""Numbers as people write them: a decimal comma, marks between thousands, a currency, a percent sign."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

CURRENCY = "$€£¥₹"
UNIT = rf"[%‰°{CURRENCY}]|[A-Z]{{3}}"
EXPONENT = r"(?:[eE][-+]?\d+)?"
# no-break, thin and narrow spaces, which spreadsheets put between thousands
SPACES = "\u00a0\u2009\u202f"
TRUTH = {"true": 1.0, "false": 0.0}
TRUTH_AS_NUMBERS = {
    "1": 1.0,
    "0": 0.0,
    "1.0": 1.0,
    "0.0": 0.0,
}  # as other rows of such a column may have it
# in lower case; among numbers and dates they mean that a value is missing, among words they are
# words
NO_NUMBER = frozenset(
    (
        *(
            "-",
            "--",
            "---",
            "\u2013",
            "\u2014",
            ".",
            "..",
            "...",
            "?",
            "*",
            "na",
            "n/a",
            "n.a.",
            "n.a",
            "n/d",
            "n.d.",
            "nd",
        ),
        *("nan", "nil", "none", "null", "#n/a", "#na", "#null!", "#value!", "#div/0!", "<na>"),
    )
)
GROUPED = r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+"
SAMPLE = 1000  # values that tell whether a column may hold numbers at all


class BadValue(UserError):
    """A value that a column cannot have; ``row`` counts from 0."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class NumberFormat:
    """How the numbers of one column are written.

    Attributes:
        decimal: The mark before decimals: a dot or a comma.
        thousands: The mark between thousands: '', a comma, a dot, a space or an apostrophe.
        unit: A currency or a percent sign that stands beside the numbers, and is left out; '' for
            none.
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
        """Says what a person would notice."""
        if self.truth:
            return "true and false as 1 and 0"
        parts = []
        if self.thousands:
            parts.append(f"'{self.thousands}' between thousands")
        if self.decimal != ".":
            parts.append(f"a decimal '{self.decimal}'")
        if self.unit:
            parts.append(f"the unit '{self.unit}' left out")
        return " and ".join(parts) or "plain numbers"

    @property
    def pattern(self) -> str:
        """A regular expression for one number, its unit already left out."""
        d = re.escape(self.decimal)
        whole = r"\d+"
        if self.thousands:
            # a leading zero is no group of thousands: 0,942 has decimals
            whole = rf"(?:[1-9]\d{{0,2}}(?:{re.escape(self.thousands)}\d{{3}})+|\d+)"
        return rf"[-+]?(?:{whole}(?:{d}\d*)?|{d}\d+){EXPONENT}"

    def read(self, texts: pd.Series) -> np.ndarray:
        """Reads known texts as float64; NaN where one is no number of this format."""
        import pandas as pd

        if self.truth:
            return (
                texts.str.lower()
                .map(TRUTH | TRUTH_AS_NUMBERS)
                .to_numpy(dtype=np.float64, na_value=np.nan)
            )
        if self.plain:
            return plain_numbers(texts)
        bare = without_unit(tidy(texts), self.unit)
        fits = bare.str.fullmatch(self.pattern).to_numpy(dtype=bool, na_value=False)
        if self.thousands:
            bare = bare.str.replace(self.thousands, "", regex=False)
        if self.decimal != ".":
            bare = bare.str.replace(self.decimal, ".", regex=False)
        numbers = pd.to_numeric(bare.where(fits), errors="coerce")
        return numbers.to_numpy(dtype=np.float64, na_value=np.nan)

    def numbers(self, series: pd.Series) -> np.ndarray:
        """Reads a column, of texts or of numbers, as float64 with NaN for missing values.

        Raises:
            BadValue: A text that is no number, or a number that single precision does not hold.
        """
        numbers = typed_numbers(series)
        if numbers is None and not is_texts(series):
            numbers = np.full(len(series), np.nan)
            if series.notna().any():
                row = int(series.notna().to_numpy().argmax())
                raise BadValue(row, f"holds '{series.iloc[row]}' where a number is expected")
        if numbers is None and self.plain:
            numbers = all_plain(series)
        if numbers is None:
            series = without_words_for_none(series)
            known = series.notna().to_numpy()
            numbers = np.full(len(series), np.nan)
            numbers[known] = self.read(series[known])
            text = np.isnan(numbers) & known
            if text.any():
                row = int(text.argmax())
                form = "" if self.plain else f" ({self})"
                raise BadValue(row, f"holds '{series.iloc[row]}' where a number is expected{form}")
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


def without_words_for_none(series: pd.Series) -> pd.Series:
    """Texts of a column of numbers or dates, those that stand for no value missing."""
    none = series.str.lower().isin(NO_NUMBER)
    return series.mask(none) if none.any() else series


def words_for_none(series: pd.Series) -> str:
    """Says which words of a column of numbers count as missing; '' where there are none."""
    if not is_texts(series) or all_plain(series) is not None:
        return ""
    found = series[series.str.lower().isin(NO_NUMBER)].value_counts()
    words = ", ".join(f"'{word}'" for word in found.index)
    return f"{words} in {found.sum()} rows counts as missing" if len(found) else ""


def typed_numbers(series: pd.Series) -> np.ndarray | None:
    """The numbers of a column that a typed file holds; None for a column of texts or dates."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(series):
        return series.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    return None


def all_plain(texts: pd.Series) -> np.ndarray | None:
    """Numbers as programs write them, NaN for missing ones; None where a text is no such number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        numbers = pc.cast(pa.array(texts, type=pa.large_string()), pa.float64())
    except pa.ArrowInvalid:
        return None
    return np.array(numbers.to_numpy(zero_copy_only=False))


def plain_numbers(texts: pd.Series) -> np.ndarray:
    """Numbers as programs write them, NaN for other texts."""
    import pandas as pd

    numbers = all_plain(texts)
    if numbers is not None:
        return numbers
    fits = texts.str.fullmatch(
        rf"\s*(?:{NumberFormat().pattern}|[-+]?inf(?:inity)?)\s*", case=False
    )
    wanted = texts.where(fits.astype(bool))
    return pd.to_numeric(wanted, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def tidy(texts: pd.Series) -> pd.Series:
    """Texts with one kind of space, apostrophe and minus sign, and brackets of bookkeepers as a minus."""
    texts = texts.str.replace(rf"[{SPACES}]", " ", regex=True).str.replace(
        "\u2019", "'", regex=False
    )
    texts = texts.str.replace("\u2212", "-", regex=False)
    return texts.str.replace(r"^\((.*)\)$", r"-\1", regex=True)


def without_unit(texts: pd.Series, unit: str) -> pd.Series:
    """Texts without a unit before or behind the number."""
    if not unit:
        return texts
    word = re.escape(unit)
    texts = texts.str.replace(rf"^([-+]?)\s*{word}\s*", r"\1", regex=True)
    return texts.str.replace(rf"\s*{word}$", "", regex=True)


def unit_of(texts: Iterable[str]) -> str:
    """The one unit that stands beside numbers; '' where there is none or there are several."""
    number = r"[\d.,' ]*\d[\d.,' ]*"
    found = set()
    for text in texts:
        match = re.fullmatch(rf"[-+]?\s*({UNIT})?\s*[-+]?{number}{EXPONENT}\s*({UNIT})?", text)
        if match:
            found |= {unit for unit in match.groups() if unit}
    return found.pop() if len(found) == 1 else ""


def forms(decimal: str | None, thousands: str | None) -> list[tuple[str, str]]:
    """The (decimal, thousands) that may be meant, the likeliest first."""
    every = [
        *((".", ""), (",", ""), (".", ","), (",", ".")),
        *((".", " "), (",", " "), (".", "'"), (",", "'")),
    ]
    return [
        (d, t)
        for d, t in every
        if (decimal is None or d == decimal) and (thousands is None or t == thousands)
    ]


def is_texts(series: pd.Series) -> bool:
    """Whether a column holds texts: not numbers or dates of a typed file."""
    return series.dtype == "str"


def shares(
    series: pd.Series, decimal: str | None, thousands: str | None
) -> dict[NumberFormat, float]:
    """The share of a column's known values that are numbers, by each format that may be meant; those at the largest share.

    Args:
        series: Texts of the training rows.
        decimal: The mark before decimals, where it is set by hand.
        thousands: The mark between thousands, where it is set by hand.
    """
    import pandas as pd

    by_hand = decimal is not None or thousands is not None
    if not by_hand and series.notna().any() and all_plain(series) is not None:
        # 45.000 may mean 45 or 45000: the other columns of the file may tell
        return {NumberFormat(): 1.0} | (
            {NumberFormat(",", "."): 1.0} if all_grouped(series.dropna()) else {}
        )
    known = without_words_for_none(series).dropna()
    if not len(known):
        return {}
    counts = known.value_counts()
    texts = pd.Series(counts.index, dtype="str")
    times = counts.to_numpy()

    def share(form: NumberFormat) -> float:
        return int(times[~np.isnan(form.read(texts))].sum()) / len(known)

    if not by_hand and len(texts) <= 4 and set(texts.str.lower()) <= set(TRUTH):
        return {NumberFormat(truth=True): 1.0}
    some = texts.head(SAMPLE)
    unit = unit_of(tidy(some))
    candidates = [NumberFormat(d, t, unit) for d, t in forms(decimal, thousands)]
    # free text is told from numbers by its commonest values
    likely = [form for form in candidates if not np.isnan(form.read(some)).all()]
    found = {form: share(form) for form in likely}
    best = max(found.values(), default=0.0)
    return {form: value for form, value in found.items() if value == best and value > 0}


def all_grouped(texts: pd.Series) -> bool:
    """Whether dots of plain numbers stand where dots between thousands would, in all that have one."""
    some = texts.head(SAMPLE // 10)
    for part in (some, texts):  # the first few nearly always tell
        dotted = part[part.str.contains(".", regex=False)]
        if len(dotted) and not dotted.str.fullmatch(GROUPED).all():
            return False
    return len(dotted) > 0


@dataclass(frozen=True)
class Written:
    """What the numbers of one column may be.

    Attributes:
        format: How they are written; None where the column holds no numbers.
        share: The share of the known values that are numbers so.
        doubt: Another format that fits as well, where the file does not tell which is meant.
    """

    format: NumberFormat | None
    share: float
    doubt: NumberFormat | None = None


def find_formats(
    columns: dict[str, pd.Series], decimal: str | None, thousands: str | None, comma_file: bool
) -> dict[str, Written]:
    """Finds how the numbers of each column are written; columns that leave no doubt settle what others may mean.

    Args:
        columns: Columns of the training rows, by name.
        decimal: The mark before decimals, where it is set by hand.
        thousands: The mark between thousands, where it is set by hand.
        comma_file: Whether commas separate the columns of the file, so that a comma inside a number
            is a rare thing.
    """
    found: dict[str, dict[NumberFormat, float]] = {}
    result: dict[str, Written] = {}
    for name, series in columns.items():
        if is_texts(series):
            found[name] = shares(series, decimal, thousands)
        else:
            numeric = typed_numbers(series) is not None
            result[name] = Written(NumberFormat() if numeric else None, float(numeric))
    # a number with decimals settles which mark stands before them in the whole file
    settled = {form.decimal for forms_ in found.values() for form in settling(forms_)}
    for name, candidates in found.items():
        result[name] = chosen(candidates, settled, comma_file)
        if result[name].share < 0.9 and (decimal or thousands):
            refuse_other_marks(name, columns[name], decimal, thousands)
    return result


def refuse_other_marks(
    name: str, series: pd.Series, decimal: str | None, thousands: str | None
) -> None:
    """Looks whether a column holds numbers with other marks than those set by hand.

    Raises:
        UserError: It does, and would be taken for a column of words.
    """
    known = without_words_for_none(series).dropna()
    numbers = ~np.isnan(plain_numbers(known))
    if len(known) and numbers.mean() >= 0.9:
        example = known.iloc[int(numbers.argmax())]
        marks = {"data.decimal": decimal, "data.thousands": thousands}
        given = " and ".join(f"{key} '{mark}'" for key, mark in marks.items() if mark)
        raise UserError(f"column '{name}' holds '{example}', which is no number with {given}")


def settling(candidates: dict[NumberFormat, float]) -> list[NumberFormat]:
    """The formats of a column that is read as numbers in one way alone, and uses a mark."""
    ways = {(form.decimal, form.thousands) for form in simplest(candidates)}
    full = [form for form, share in candidates.items() if share >= 0.9]
    return full[:1] if len(ways) == 1 and full and next(iter(ways)) != (".", "") else []


def simplest(candidates: dict[NumberFormat, float]) -> list[NumberFormat]:
    """The formats without marks that no value has: where (',', '') fits, (',', '.') adds nothing."""
    forms_ = list(candidates)
    bare = {form.decimal for form in forms_ if not form.thousands}
    return [form for form in forms_ if not form.thousands or form.decimal not in bare]


def chosen(candidates: dict[NumberFormat, float], settled: set[str], comma_file: bool) -> Written:
    """Chooses one of the formats that fit a column equally well."""
    if not candidates:
        return Written(None, 0.0)
    share = next(iter(candidates.values()))
    ways = simplest(candidates)
    if len(settled) == 1:
        # 45,000 beside 0,9 has decimals; 45.000 beside 0,9 has none
        mark = next(iter(settled))
        fitting = [form for form in candidates if form.decimal == mark]
        if fitting:
            return Written(fitting[0], share)
    if len(ways) > 1 and ways[0].decimal != "." and not comma_file:
        return Written(ways[0], share, doubt=ways[1])
    if len(ways) > 1 and ways[0].decimal == "," and comma_file:
        return Written(ways[1], share)
    return Written(ways[0], share)
