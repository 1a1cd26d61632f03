"""Decides which of a table's columns become inputs, and how; every decision has a reason."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from src.data.tables.columns import Categorical, Column, Numeric, to_words
from src.data.tables.dates import (
    DATE_PARTS,
    ISO,
    DatePart,
    find_date_formats,
    find_mixed_dates,
    has_offsets,
    is_typed_date,
    parse_dates,
)
from src.data.tables.labels import get_format, holds_codes, refuse_mixture
from src.data.tables.number_formats import Written
from src.data.tables.numbers import (
    BadValue,
    NumberFormat,
    describe_words_for_missing,
    is_texts,
    mask_words_for_missing,
)
from src.data.tables.row_weights import list_weight_columns
from src.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from src.data.tables.table import Table

SMALL = 20  # in so few rows, a different text in each is no sign of an identifier
# names that pandas gives an index that was saved without one
UNNAMED = r"Unnamed: \d+(\.\d+)*|__index_level_\d+__|index|level_\d+"
CONSTANT = "constant in the training rows"


class BadColumn(UserError):
    """A column that cannot be read; the message continues "column ...".

    Attributes:
        column: Its name.
        row: The row, counted from 0; None if it is no single one.
    """

    def __init__(self, column: str, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.column = column
        self.row = row


@dataclass
class InputReader:
    """Decides what each column becomes, from the training rows alone.

    Attributes:
        frame: All rows.
        rows: The numbers of the training rows.
        written: How the numbers of each column are written.
        forced: Whether the columns are named by hand; then none is dropped for its looks.
        categorical: Columns that are categories, whatever they look like.
        dates: refuse or expand.
        date_format: The format of dates, if the settings name it.
        dropped: {column: why it is no input}; filled by :meth:`columns`.
        notes: What a person should know of how columns are read; filled by :meth:`columns`.
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
        """Returns what the columns become: each one nothing, one input, or several.

        Raises:
            BadColumn: A column cannot be read, or may be meant in two ways.
            UserError: Columns hold dates that are to be refused.
        """
        # all columns of dates are named at once, not one a run
        if self.dates == "refuse":
            self._refuse_dates(names)
        return [column for name in names for column in self._read(name)]

    def _read(self, name: str) -> Iterator[Column]:
        series = self.train[name]
        if is_constant(series):
            self.dropped[name] = CONSTANT
        elif name in self.categorical:
            yield Categorical.fit(series)
        elif self._holds_dates(name):
            yield from self._read_dates(name)
        elif self.written[name].share == 1 and not holds_codes(series):
            yield from self._read_numbers(name)
        else:
            yield from self._read_words(name)

    # -- numbers -----------------------------------------------------------------------------------
    def _read_numbers(self, name: str) -> Iterator[Column]:
        series = self.train[name]
        how = self.written[name]
        if how.doubt is not None:
            self._refuse_doubt(name, how.doubt.thousands)
        form = get_format(how)
        try:
            numbers = form.numbers(series)
        except BadValue as error:
            raise BadColumn(name, str(error), error.row) from None

        known = numbers[~np.isnan(numbers)]
        if not varies(numbers):
            self.dropped[name] = CONSTANT
            return

        # an index or a counter would tell a row's place in the file
        whole = bool((known == np.floor(known)).all())
        distinct = len(np.unique(known)) == len(known)
        if not self.forced and whole and distinct and re.fullmatch(UNNAMED, name):
            self.dropped[name] = "an index that was saved with the table"
            return
        if not self.forced and counts_rows(self.frame[name], form):
            self.dropped[name] = "counts the rows"
            return

        self._note(name, "" if form.plain else str(form))
        self._note(name, describe_words_for_missing(self.frame[name]))
        yield Numeric.fit(name, series, form)

    def _refuse_doubt(self, name: str, mark: str) -> None:
        """Refuses a column of numbers with a mark that may mean two things."""
        texts = mask_words_for_missing(self.train[name]).dropna()
        example = next(text for text in texts if mark in text)
        raise BadColumn(
            name,
            f"holds '{example}', where '{mark}' may be followed by decimals or by thousands: "
            f"set --data.decimal '{mark}' or --data.thousands '{mark}'",
        )

    # -- dates -------------------------------------------------------------------------------------
    def _refuse_dates(self, names: Sequence[str]) -> None:
        held = []
        for name in names:
            used = name not in self.categorical and not is_constant(self.train[name])
            if used and self._holds_dates(name):
                held.append(name)
        if not held:
            return
        listed = ", ".join(held)
        what = f"column '{held[0]}' holds"
        if len(held) > 1:
            what = f"columns {', '.join(map(repr, held))} hold"
        raise UserError(
            f"{what} dates: set --data.dates expand, or --data.drop '[{listed}]'; "
            f"where these are no dates, --data.categorical '[{listed}]'"
        )

    def _holds_dates(self, name: str) -> bool:
        series = self.train[name]
        if is_typed_date(series):
            return True
        if not is_texts(series):
            return False
        if self.date_format is not None and self._fits_date_format(series):
            return True
        return self.written[name].share < 1 and bool(find_date_formats(series))

    def _fits_date_format(self, series: pd.Series) -> bool:
        """Returns whether nine of ten texts are dates of the format that the settings name."""
        known = mask_words_for_missing(series).dropna()
        if not len(known):
            return False
        return bool(parse_dates(known, str(self.date_format)).notna().mean() >= 0.9)

    def _read_dates(self, name: str) -> Iterator[Column]:
        series = self.train[name]
        form = self._choose_date_format(name)
        if is_texts(series) and has_offsets(series):
            self._note(name, "offsets from UTC are left out, the clock counts as written")
        for part in DATE_PARTS:
            reads = DatePart(form, part)
            try:
                numbers = reads.numbers(series)
            except BadValue as error:
                raise BadColumn(name, str(error), error.row) from None
            if varies(numbers):
                yield Numeric.fit(f"{name}.{part}", series, reads)
            else:
                self.dropped[f"{name}.{part}"] = CONSTANT

    def _choose_date_format(self, name: str) -> str:
        """Returns the one format in which the dates of a column are written."""
        series = self.train[name]
        if is_typed_date(series):
            return ISO  # in which files of texts have such dates
        if self.date_format is not None and self._fits_date_format(series):
            return self.date_format
        formats = find_date_formats(series)
        if len(formats) > 1:
            example = series.dropna().iloc[0]
            raise BadColumn(
                name,
                f"holds dates such as '{example}', which may be {formats[0]} or {formats[1]}: "
                f"set --data.date_format '{formats[0]}' or '{formats[1]}'",
            )
        return formats[0]

    # -- words -------------------------------------------------------------------------------------
    def _read_words(self, name: str) -> Iterator[Column]:
        series = self.train[name]
        how = self.written[name]
        self._refuse_slips(name)
        if how.share < 1:
            self._refuse_mixed_dates(name)
        if not self.forced:
            try:
                refuse_mixture(series, how, "data.categorical")
            except UserError as error:
                raise BadColumn(name, str(error)) from None

        # words that hardly repeat cannot be learnt from
        known = int(series.notna().sum())
        distinct = series.nunique()
        if not self.forced and len(series) > SMALL and distinct > known / 2:
            what = "an identifier or free text" if how.share < 1 else "an identifier"
            if 0 < how.share < 1:
                what += f", though {how.share:.0%} of them are numbers"
            hint = f" (--data.text '[{name}]' reads it)" if how.share < 1 else ""
            counts = f"{distinct} different texts in {known} known values"
            self.dropped[name] = f"{counts}: {what}{hint}"
            return

        if holds_codes(series):
            self._note(name, "codes with leading zeros, read as categories")
        elif how.share > 0:
            share = f"{how.share:.0%} of its values are numbers"
            self._note(name, f"read as categories, though {share}")
        self._note(name, describe_case_variants(series))
        yield Categorical.fit(series)

    def _refuse_slips(self, name: str) -> None:
        """Names the row of a text in a column of numbers, which would turn all into categories."""
        series = self.train[name]
        how = self.written[name]
        if how.format is None or not 0.9 <= how.share < 1 or holds_codes(series):
            return
        try:
            how.format.numbers(series)
        except BadValue as error:
            hint = (
                "; if it means a missing value, add it to data.missing; "
                f"if '{name}' is no number, to data.categorical"
            )
            raise BadColumn(name, f"{error}{hint}", error.row) from None

    def _refuse_mixed_dates(self, name: str) -> None:
        """Refuses a column of dates that no one format reads."""
        mixed = find_mixed_dates(self.train[name])
        if mixed is None:
            return
        ways_out = f"--data.drop '[{name}]' or --data.categorical '[{name}]'"
        if mixed.is_date:
            raise BadColumn(
                name,
                f"holds dates in several forms, such as '{mixed.date}' and '{mixed.other}': "
                f"write all in one, or set {ways_out}",
            )
        raise BadColumn(
            name,
            f"holds dates such as '{mixed.date}', but also '{mixed.other}': if that means a "
            f"missing value, set --data.missing '[{mixed.other}]'; otherwise {ways_out}",
        )

    def _note(self, name: str, note: str) -> None:
        if note:
            self.notes.append(f"column '{name}': {note}")


def is_constant(series: pd.Series) -> bool:
    """Returns whether all rows have the same value, or none has one."""
    distinct = series.nunique()
    return distinct == 0 or (distinct == 1 and bool(series.notna().all()))


def varies(numbers: np.ndarray) -> bool:
    """Returns whether numbers differ, or whether some but not all are missing."""
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        return False
    return bool(known.min() < known.max()) or len(known) < len(numbers)


def describe_case_variants(series: pd.Series) -> str:
    """Says which words of a column differ in case alone; '' where there are none."""
    words = sorted(to_words(series).dropna().unique().tolist())
    first: dict[str, str] = {}
    for word in words:
        other = first.setdefault(word.lower(), word)
        if other != word:
            return f"'{other}' and '{word}' differ in case alone, and count as two values"
    return ""


def counts_rows(series: pd.Series, form: NumberFormat) -> bool:
    """Returns whether whole numbers go up, or down, by the same step with each row."""
    try:
        numbers = form.numbers(series)
    except BadValue:
        # of a row that does not train: the error comes when that row is read
        return False
    if len(numbers) < 3 or np.isnan(numbers).any() or (numbers != np.floor(numbers)).any():
        return False
    steps = np.diff(numbers)
    return bool(steps[0] != 0 and (steps == steps[0]).all())


def list_candidates(table: Table) -> list[str]:
    """Returns the columns of a table's first file that may be inputs."""
    taken = {table.id, table.group, table.split_column, table.time, *table.drop}
    taken.update(list_weight_columns(table))
    for columns in table.targets.values():
        taken.update(columns)
    wanted = table.inputs
    if wanted is None:
        taken.update(table.dropped)
        wanted = [str(name) for name in table.main.columns if name not in taken]
    return [name for name in wanted if name not in table.drop]


def read_inputs(table: Table, read: Collection[str] = ()) -> tuple[InputReader, list[Column]]:
    """Reads the input columns of a table's first file.

    Args:
        table: The table.
        read: Columns that have an encoder already.

    Returns:
        The reader, with its notes and the dropped columns; and the encoder of each input column.

    Raises:
        UserError: A column cannot be read, or may be meant in two ways.
    """
    others = {*read, *table.text, *table.images}
    rows = table.rows["train"]
    reader = InputReader(
        frame=table.main,
        rows=rows,
        written=table.written,
        forced=table.inputs is not None,
        categorical=table.categorical,
        dates=table.dates,
        date_format=table.date_format,
    )
    try:
        return reader, reader.columns(
            [name for name in list_candidates(table) if name not in others]
        )
    except BadColumn as error:
        place = (
            table.path
            if error.row is None
            else f"{table.path} row {reader.train.index[error.row] + 1}"
        )
        raise UserError(f"{place}: column '{error.column}' {error}") from None
    except UserError as error:
        raise UserError(f"{table.path}: {error}") from None
