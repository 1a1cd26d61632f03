"""Detection of how the numbers of each column are written, from the training rows alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from src.data.tables.bounds import find_bounded_columns, remove_marks
from src.data.tables.numbers import (
    EXPONENT,
    TRUTH,
    NumberFormat,
    is_texts,
    mask_words_for_missing,
    normalise_marks,
    read_all_plain,
    read_plain_numbers,
    read_typed_numbers,
)
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from src.data.tables.table import Table

CURRENCY = "$€£¥₹"
UNIT = rf"[%‰°{CURRENCY}]|[A-Z]{{3}}"
GROUPED = r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+"
SAMPLE = 1000  # values that tell whether a column may hold numbers at all
# (decimal, thousands) that may be meant, the likeliest first
MARKS = (
    *((".", ""), (",", ""), (".", ","), (",", ".")),
    *((".", " "), (",", " "), (".", "'"), (",", "'")),
)


@dataclass(frozen=True)
class Written:
    """How the numbers of one column seem to be written.

    Attributes:
        format: The format; None where the column holds no numbers.
        share: The share of the known values that are numbers of this format.
        doubt: Another format that fits as well, where the file does not tell which is meant.
    """

    format: NumberFormat | None
    share: float
    doubt: NumberFormat | None = None


def find_formats_of_table(table: Table) -> dict[str, Written]:
    """Finds how the numbers of each column of a table's first file are written.

    Raises:
        UserError: A column holds numbers, but not with the marks that the settings name.
    """
    train = table.main.iloc[table.rows["train"]]
    columns = {str(name): train[name] for name in train.columns}
    # a bound such as >10 is written as the numbers beside it are
    for name in find_bounded_columns(table):
        columns[name] = remove_marks(columns[name])
    comma_file = table.layout.has_commas(table.path)
    try:
        return find_formats(columns, table.decimal, table.thousands, comma_file)
    except UserError as error:
        raise UserError(f"{table.path}: {error}") from None


def find_formats(
    columns: Mapping[str, pd.Series], decimal: str | None, thousands: str | None, comma_file: bool
) -> dict[str, Written]:
    """Finds how the numbers of each column are written.

    Columns that leave no doubt decide for columns that fit several formats.

    Args:
        columns: Columns of the training rows, by name.
        decimal: The mark before decimals, if the settings name it.
        thousands: The mark between thousands, if the settings name it.
        comma_file: Whether commas separate the columns of the file, so that a comma inside a number
            is rare.

    Raises:
        UserError: A column holds numbers, but not with the marks that the settings name.
    """
    found: dict[str, dict[NumberFormat, float]] = {}
    result: dict[str, Written] = {}
    for name, series in columns.items():
        if is_texts(series):
            found[name] = fit_formats(series, decimal, thousands)
        else:
            numeric = read_typed_numbers(series) is not None
            result[name] = Written(NumberFormat() if numeric else None, float(numeric))

    # a number with decimals settles for the whole file which mark is before them
    settled = set()
    for fitting in found.values():
        settled |= {form.decimal for form in find_settling_formats(fitting)}
    for name, fitting in found.items():
        result[name] = choose_format(fitting, settled, comma_file)
        if result[name].share < 0.9 and (decimal or thousands):
            refuse_other_marks(name, columns[name], decimal, thousands)
    return result


def fit_formats(
    series: pd.Series, decimal: str | None, thousands: str | None
) -> dict[NumberFormat, float]:
    """Finds the formats in which most values of a column are numbers.

    Args:
        series: Texts of the training rows.
        decimal: The mark before decimals, if the settings name it.
        thousands: The mark between thousands, if the settings name it.

    Returns:
        {format: share of the known values that are numbers of it}, for all formats with the largest
        share, the likeliest first.
    """
    import pandas as pd

    by_hand = decimal is not None or thousands is not None
    if not by_hand and series.notna().any() and read_all_plain(series) is not None:
        fitting = {NumberFormat(): 1.0}

        # 45.000 may mean 45 or 45000: the other columns of the file may tell
        if are_grouped(series.dropna()):
            fitting[NumberFormat(",", ".")] = 1.0
        return fitting

    known = mask_words_for_missing(series).dropna()
    if not len(known):
        return {}
    counts = known.value_counts()
    texts = pd.Series(counts.index, dtype="str")
    times = counts.to_numpy()
    if not by_hand and len(texts) <= 4 and set(texts.str.lower()) <= set(TRUTH):
        return {NumberFormat(truth=True): 1.0}

    some = texts.head(SAMPLE)
    unit = find_unit(normalise_marks(some))
    shares: dict[NumberFormat, float] = {}
    for d, t in MARKS:
        if decimal not in (None, d) or thousands not in (None, t):
            continue
        form = NumberFormat(d, t, unit)

        # the commonest values tell numbers from free text without reading all of it
        if np.isnan(form.read_texts(some)).all():
            continue
        shares[form] = int(times[~np.isnan(form.read_texts(texts))].sum()) / len(known)
    best = max(shares.values(), default=0.0)
    return {form: share for form, share in shares.items() if share == best and share > 0}


def find_unit(texts: Iterable[str]) -> str:
    """Returns the one unit that is next to numbers; '' for none or several."""
    number = r"[\d.,' ]*\d[\d.,' ]*"
    found = set()
    for text in texts:
        match = re.fullmatch(rf"[-+]?\s*({UNIT})?\s*[-+]?{number}{EXPONENT}\s*({UNIT})?", text)
        if match:
            found |= {unit for unit in match.groups() if unit}
    return found.pop() if len(found) == 1 else ""


def are_grouped(texts: pd.Series) -> bool:
    """Returns whether each dot of plain numbers may be a mark between thousands."""
    dotted = texts.iloc[:0]

    # the first values nearly always tell
    for section in (texts.head(SAMPLE // 10), texts):
        dotted = section[section.str.contains(".", regex=False)]
        if len(dotted) and not dotted.str.fullmatch(GROUPED).all():
            return False
    return len(dotted) > 0


def refuse_other_marks(
    name: str, series: pd.Series, decimal: str | None, thousands: str | None
) -> None:
    """Refuses a column of numbers with other marks than the settings say.

    Raises:
        UserError: It is one, and would be taken for a column of words.
    """
    known = mask_words_for_missing(series).dropna()
    numbers = ~np.isnan(read_plain_numbers(known))
    if len(known) and numbers.mean() >= 0.9:
        example = known.iloc[int(numbers.argmax())]
        marks = {"data.decimal": decimal, "data.thousands": thousands}
        given = " and ".join(f"{key} '{mark}'" for key, mark in marks.items() if mark)
        raise UserError(f"column '{name}' holds '{example}', which is no number with {given}")


def find_settling_formats(fitting: Mapping[NumberFormat, float]) -> list[NumberFormat]:
    """Returns the format of a column that can be read in one way alone, and uses a mark."""
    ways = {(form.decimal, form.thousands) for form in remove_unused_marks(fitting)}
    full = [form for form, share in fitting.items() if share >= 0.9]
    return full[:1] if len(ways) == 1 and full and next(iter(ways)) != (".", "") else []


def remove_unused_marks(fitting: Mapping[NumberFormat, float]) -> list[NumberFormat]:
    """Removes formats with a mark that no value has.

    Where the format (',', '') fits, (',', '.') reads the same numbers.
    """
    bare = {form.decimal for form in fitting if not form.thousands}
    return [form for form in fitting if not form.thousands or form.decimal not in bare]


def choose_format(
    fitting: Mapping[NumberFormat, float], settled: set[str], comma_file: bool
) -> Written:
    """Chooses one of the formats that fit a column equally well.

    Args:
        fitting: The formats, with the share that is the same for all.
        settled: The marks before decimals in columns that leave no doubt.
        comma_file: Whether commas separate the columns of the file.
    """
    if not fitting:
        return Written(None, 0.0)
    share = next(iter(fitting.values()))
    ways = remove_unused_marks(fitting)

    # 45,000 beside 0,9 has decimals; 45.000 beside 0,9 has none
    if len(settled) == 1:
        mark = next(iter(settled))
        consistent = [form for form in fitting if form.decimal == mark]
        if consistent:
            return Written(consistent[0], share)

    if len(ways) > 1 and ways[0].decimal != "." and not comma_file:
        return Written(ways[0], share, doubt=ways[1])

    # in a file of commas, a comma inside a number is more likely one between thousands
    if len(ways) > 1 and ways[0].decimal == "," and comma_file:
        return Written(ways[1], share)
    return Written(ways[0], share)
