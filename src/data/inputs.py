"""Which of a table's columns become inputs, and how; what is left out is said with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from src.data.columns import Categorical, Column, Numeric, to_words
from src.data.dates import (
    DATE_PARTS,
    ISO,
    DatePart,
    date_formats,
    has_offsets,
    is_typed_date,
    parsed,
    several_forms,
)
from src.data.labels import is_codes, number_format, refuse_mixture
from src.data.numbers import (
    BadValue,
    NumberFormat,
    Written,
    is_texts,
    without_words_for_none,
    words_for_none,
)
from src.data.reading import nearest
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SMALL = 20  # rows up to which different texts in each are no sign of an identifier
# what pandas calls an index that was saved without a name
UNNAMED = r"Unnamed: \d+(\.\d+)*|__index_level_\d+__|index|level_\d+"


class BadColumn(UserError):
    """A column that cannot be read, in words that follow 'column ...'; ``row`` is where, counted from 0, or None."""

    def __init__(self, column: str, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.column, self.row = column, row


@dataclass
class InputReader:
    """Decides what each column becomes, from the training rows alone.

    Args:
        frame: All rows.
        rows: Which of them train.
        written: How the numbers of each column are written.
        forced: Whether the columns were named by hand, so that none is left out for what it looks
            like.
        categorical: Columns that are categories whatever they look like.
        dates: refuse or expand.
        date_format: The format of dates, where it is set by hand.
    """

    frame: pd.DataFrame
    rows: np.ndarray
    written: Mapping[str, Written]
    forced: bool
    categorical: Sequence[str]
    dates: Literal["refuse", "expand"]
    date_format: str | None
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.train = self.frame.iloc[self.rows]

    def columns(self, names: Sequence[str]) -> list[Column]:
        """Returns what the columns become: nothing, one input, or several.

        Raises:
            BadColumn: One of them cannot be read, or holds what may be meant in two ways.
            UserError: Columns hold dates that are to be refused.
        """
        if self.dates == "refuse":
            self._refuse_dates(names)
        return [column for name in names for column in self._column(name)]

    def _refuse_dates(self, names: Sequence[str]) -> None:
        kept = [
            name
            for name in names
            if name not in self.categorical and not is_constant(self.train[name])
        ]
        held = [name for name in kept if self._holds_dates(name)]
        if not held:
            return
        what = (
            f"columns {', '.join(map(repr, held))} hold"
            if len(held) > 1
            else f"column '{held[0]}' holds"
        )
        raise UserError(
            f"{what} dates: set --data.dates expand, or --data.drop '[{', '.join(held)}]'; "
            f"where these are no dates, --data.categorical '[{', '.join(held)}]'"
        )

    def _holds_dates(self, name: str) -> bool:
        series = self.train[name]
        if is_typed_date(series):
            return True
        if self.date_format is not None and is_texts(series) and self._fits(series):
            return True
        return is_texts(series) and self.written[name].share < 1 and bool(date_formats(series))

    def _fits(self, series: pd.Series) -> bool:
        """Whether nine of ten texts are dates of the format that is set by hand."""
        known = without_words_for_none(series).dropna()
        return len(known) > 0 and bool(parsed(known, str(self.date_format)).notna().mean() >= 0.9)

    def _column(self, name: str) -> Iterator[Column]:
        series = self.train[name]
        known, distinct = int(series.notna().sum()), series.nunique()
        if is_constant(series):
            self.dropped[name] = "constant in the training rows"
        elif name in self.categorical:
            yield Categorical.fit(series)
        elif self._holds_dates(name):
            yield from self._date(name)
        elif self.written[name].share == 1 and not is_codes(series):
            yield from self._number(name)
        else:
            yield from self._words(name, known, distinct)

    def _number(self, name: str) -> Iterator[Column]:
        series, how = self.train[name], self.written[name]
        if how.doubt is not None:
            marked = next(
                text
                for text in without_words_for_none(series).dropna()
                if how.doubt.thousands in text
            )
            raise BadColumn(
                name,
                f"holds '{marked}', which may have decimals or thousands behind its '{how.doubt.thousands}': set "
                f"--data.decimal '{how.doubt.thousands}' or --data.thousands '{how.doubt.thousands}'",
            )
        form = number_format(how)
        try:
            numbers = form.numbers(series)
        except BadValue as error:
            raise BadColumn(name, str(error), error.row) from None
        known = numbers[~np.isnan(numbers)]
        if not len(known) or (known.min() == known.max() and len(known) == len(numbers)):
            self.dropped[name] = "constant in the training rows"
            return
        whole = bool((known == np.floor(known)).all())
        if (
            not self.forced
            and whole
            and len(np.unique(known)) == len(known)
            and re.fullmatch(UNNAMED, name)
        ):
            self.dropped[name] = "an index that was saved with the table"
            return
        if not self.forced and counts_rows(self.frame[name], form):
            self.dropped[name] = "counts the rows"
            return
        for note in (str(form) if not form.plain else "", words_for_none(self.frame[name])):
            if note:
                self.notes.append(f"column '{name}': {note}")
        yield Numeric.fit(name, series, form)

    def _date(self, name: str) -> Iterator[Column]:
        series = self.train[name]
        form = self._date_format(name)
        if is_texts(series) and has_offsets(series):
            self.notes.append(
                f"column '{name}': offsets from UTC are left out, the clock counts as written"
            )
        for part in DATE_PARTS:
            reads = DatePart(form, part)
            try:
                numbers = reads.numbers(series)
            except BadValue as error:
                raise BadColumn(name, str(error), error.row) from None
            known = numbers[~np.isnan(numbers)]
            if len(known) and (known.min() < known.max() or len(known) < len(numbers)):
                yield Numeric.fit(f"{name}.{part}", series, reads)
            else:
                self.dropped[f"{name}.{part}"] = "constant in the training rows"

    def _date_format(self, name: str) -> str:
        """Returns the one format in which the dates of a column are written."""
        series = self.train[name]
        if is_typed_date(series):
            return ISO  # the form in which other files have such dates
        if self.date_format is not None and self._fits(series):
            return self.date_format
        formats = date_formats(series)
        if len(formats) > 1:
            example = series.dropna().iloc[0]
            raise BadColumn(
                name,
                f"holds dates such as '{example}', which may be {formats[0]} or {formats[1]}: "
                f"set --data.date_format '{formats[0]}' or '{formats[1]}'",
            )
        return formats[0]

    def _words(self, name: str, known: int, distinct: int) -> Iterator[Column]:
        series, how = self.train[name], self.written[name]
        if 0.9 <= how.share < 1 and how.format is not None and not is_codes(series):
            try:
                how.format.numbers(series)
            except BadValue as error:
                hint = f"; if it means a missing value, add it to data.missing; if '{name}' is no number, to data.categorical"
                raise BadColumn(name, f"{error}{hint}", error.row) from None
        forms = several_forms(series) if how.share < 1 else None
        if forms is not None and not forms[2]:
            raise BadColumn(
                name,
                f"holds dates such as '{forms[0]}', but also '{forms[1]}': if that means a missing value, set "
                f"--data.missing '[{forms[1]}]'; otherwise --data.drop '[{name}]' or --data.categorical '[{name}]'",
            )
        if forms is not None:
            raise BadColumn(
                name,
                f"holds dates in several forms, such as '{forms[0]}' and '{forms[1]}': write all in one, or set "
                f"--data.drop '[{name}]' or --data.categorical '[{name}]'",
            )
        if not self.forced:
            try:
                refuse_mixture(series, how, "data.categorical")
            except ValueError as error:
                raise BadColumn(name, str(error)) from None
        if not self.forced and len(series) > SMALL and distinct > known / 2:
            what = "an identifier or free text" if how.share < 1 else "an identifier"
            what += f", though {how.share:.0%} of them are numbers" if 0 < how.share < 1 else ""
            self.dropped[name] = f"{distinct} different texts in {known} known values: {what}"
            return
        if is_codes(series):
            self.notes.append(f"column '{name}': codes with leading zeros, read as categories")
        elif how.share > 0:
            share = f"{how.share:.0%} of its values are numbers"
            self.notes.append(f"column '{name}': read as categories, though {share}")
        variants = case_variants(series)
        if variants:
            self.notes.append(f"column '{name}': {variants}")
        yield Categorical.fit(series)


def is_constant(series: pd.Series) -> bool:
    """Whether all rows have the same value, or none has one."""
    distinct = series.nunique()
    return distinct == 0 or (distinct == 1 and bool(series.notna().all()))


def case_variants(series: pd.Series) -> str:
    """Words of a column that differ in case alone, in a sentence; '' where there are none."""
    words = sorted(to_words(series).dropna().unique().tolist())
    first: dict[str, str] = {}
    for word in words:
        other = first.setdefault(word.lower(), word)
        if other != word:
            return f"'{other}' and '{word}' differ in case alone, and count as two values"
    return ""


def counts_rows(series: pd.Series, form: NumberFormat) -> bool:
    """Whether a column of whole numbers goes up, or down, by the same step with each row."""
    try:
        numbers = form.numbers(series)
    except BadValue:  # of rows that do not train: said when they are read
        return False
    if len(numbers) < 3 or np.isnan(numbers).any() or (numbers != np.floor(numbers)).any():
        return False
    steps = np.diff(numbers)
    return bool(steps[0] != 0 and (steps == steps[0]).all())


def encode_inputs(
    columns: Sequence[Column], frame: pd.DataFrame, path: str, allow_missing: bool
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Encodes the rows of a file, and says what is unlike training.

    Args:
        columns: What each input column becomes.
        frame: The rows.
        path: The file, for messages.
        allow_missing: Whether a column that is not there is missing in each row.

    Returns:
        'dense' (N, F) float32 and 'categorical' (N, C) int64; and a line for each thing to be said.

    Raises:
        UserError: A column is not there, or holds a value that it cannot have.
    """
    lacking = list(dict.fromkeys(c.source for c in columns if c.source not in frame.columns))
    if lacking and not allow_missing:
        hint = nearest(lacking[0], frame.columns)
        raise UserError(
            f"{path}: lacks the input column '{lacking[0]}' ({hint}); --allow_missing takes it for missing in each row"
        )
    remarks = (
        [f"{path}: lacks {', '.join(lacking)}, taken for missing in each row"] if lacking else []
    )

    dense, categorical = (
        [np.zeros((len(frame), 0), np.float32)],
        [np.zeros((len(frame), 0), np.int64)],
    )
    for column in columns:
        series = (
            nothing(column.source, len(frame)) if column.source in lacking else frame[column.source]
        )
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
            remarks += [f"{path}: {note}" for note in unseen(column, series, values)]
    numbers, codes = np.concatenate(dense, 1), np.concatenate(categorical, 1)
    return {"dense": torch.from_numpy(numbers), "categorical": torch.from_numpy(codes)}, remarks


def unseen(column: Categorical, series: pd.Series, values: np.ndarray) -> list[str]:
    """Says how many rows have a word that training did not know, if any."""
    new = (values == 0) & series.notna().to_numpy()
    if not new.any():
        return []
    example = to_words(series).iloc[int(new.argmax())]
    return [
        f"{new.sum()} of {len(series)} rows have a '{column.column}' that training did not know, such as '{example}'"
    ]


def nothing(name: str, rows: int) -> pd.Series:
    """A column in which each value is missing."""
    import pandas as pd

    return pd.Series([None] * rows, name=name, dtype="str")
