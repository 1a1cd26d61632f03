"""Rows that are given in memory, as clients of a server send them, read as rows of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from src.data.rows import Inputs
from src.data.tables.columns import Categorical, Column, MemberColumn, Numeric
from src.data.tables.file_format import FileFormat
from src.data.tables.input_encoding import encode_inputs
from src.data.tables.numbers import BadValue, NumberFormat
from src.data.tables.texts import Text
from src.errors import UserError, suggest, suggest_or_list

if TYPE_CHECKING:
    import pandas as pd

MOST_PROBLEMS = 1000  # that are listed; a client that sends more has one and the same problem
WORDS_SHOWN = 50  # words of a category that a description lists
REQUEST = "the request"  # the file, in messages


@dataclass(frozen=True)
class Problem:
    """A reason why a row cannot be read.

    Attributes:
        row: Its place among the rows, from 0; None where it is no single one.
        column: Its column; None where it is no single one.
        message: One line, which says what is right.
    """

    row: int | None
    column: str | None
    message: str


class BadRows(UserError):
    """Rows that cannot be read.

    Attributes:
        problems: A problem of each bad value.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems[:3]))
        self.problems = list(problems)


@dataclass(frozen=True)
class InputDescription:
    """An input column, for people who have not seen the data.

    Attributes:
        name: The column.
        kind: number, category, date, text, or the name of another kind of column.
        details: Its values in the training rows, in words.
        words: The first words of a category.
        example: A value as a person writes it.
    """

    name: str
    kind: str
    details: str
    words: tuple[str, ...]
    example: str | float | None


class RowReader:
    """Reads rows in memory as the run reads those of its files, and finds all that is wrong.

    A number of JSON is taken as a person would write it in the run's file, so that a row has the
    same inputs, to the bit, as the line of a file.

    Args:
        columns: The encoder of each input column.
        known: Columns of the run's file; the ones that are no inputs are left out in silence.
        layout: Which words mean that a value is missing.
        allow_missing: Whether a column that a row lacks counts as missing.

    Raises:
        UserError: A column names files, which a client has no part in.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        known: Sequence[str],
        layout: FileFormat,
        allow_missing: bool = False,
    ) -> None:
        for column in columns:
            if isinstance(column, MemberColumn) and column.reads_files:
                raise UserError(
                    f"column '{column.column}' names files, which rows in memory cannot bring: "
                    "predict such rows with python -m src.predict"
                )
        self.columns = columns
        self.sources = list(dict.fromkeys(column.source for column in columns))
        self.known = {*known, *self.sources}
        self.allow_missing = allow_missing
        self.delimiter = layout.separator if len(layout.separator) == 1 else ","
        self._missing = frozenset(layout.words_for_missing)
        self._by_source = {column.source: column for column in columns}

    def describe(self) -> list[InputDescription]:
        """Returns a description of each input column."""
        return [describe_input(self._by_source[name]) for name in self.sources]

    def encode(self, rows: Sequence[object]) -> tuple[Inputs, list[str]]:
        """Encodes rows.

        Args:
            rows: {column: value} each.

        Returns:
            The inputs, as :func:`encode_inputs` returns them, and remarks, one line each.

        Raises:
            BadRows: Rows cannot be read.
        """
        problems: list[Problem] = []
        frame = self._make_frame(rows, problems)
        if not problems:
            try:
                return encode_inputs(self.columns, frame, REQUEST, allow_missing=False)
            except UserError:
                pass  # its message names the first bad value alone
        problems += find_bad_values(self.columns, frame)
        raise BadRows(cut_problems(problems))

    def read_words(
        self, rows: Sequence[object], columns: Sequence[str]
    ) -> tuple[dict[str, list[str | None]], list[Problem]]:
        """Reads columns of rows as words, whether they are inputs or not.

        Args:
            rows: {column: value} each.
            columns: Columns of the run's file.

        Returns:
            The words of each column, None where missing; and a problem for each row that lacks a
            column, or holds no single value in it.
        """
        problems: list[Problem] = []
        found: dict[str, list[str | None]] = {name: [] for name in columns}
        for place, row in enumerate(rows):
            for name in columns:
                word = None
                try:
                    # what is no object is a problem of the inputs already
                    if isinstance(row, Mapping):
                        word = self._read_word(row, name)
                except UserError as error:
                    problems.append(Problem(place, name, str(error)))
                found[name].append(word)
        return found, problems

    def _read_word(self, row: Mapping[str, object], name: str) -> str | None:
        """Returns a value that tells the group of a row.

        Raises:
            UserError: The row has none, or no single one.
        """
        if name not in row:
            raise UserError("is missing; it tells the group of the row")
        return self._write(row[name], self._by_source.get(name))

    def _make_frame(self, rows: Sequence[object], problems: list[Problem]) -> pd.DataFrame:
        """Returns the input columns of rows as texts; a bad value is missing, and a problem."""
        import pandas as pd

        cells: dict[str, list[str | None]] = {name: [] for name in self.sources}
        for place, row in enumerate(rows):
            if not isinstance(row, Mapping):
                what = f"is {name_type(row)}, where an object {{column: value}} is expected"
                problems.append(Problem(place, None, what))
                row = {}
            else:
                problems += self._compare_names(place, row)
            for name in self.sources:
                try:
                    cells[name].append(self._write(row.get(name), self._by_source[name]))
                except UserError as error:
                    problems.append(Problem(place, name, str(error)))
                    cells[name].append(None)
        index = pd.RangeIndex(len(rows))
        return pd.DataFrame(
            {name: pd.Series(texts, index, dtype="str") for name, texts in cells.items()}, index
        )

    def _compare_names(self, place: int, row: Mapping[str, object]) -> list[Problem]:
        """Names the columns that the run does not know, and the ones that a row lacks."""
        found = []
        unknown = [name for name in row if name not in self.known]
        if unknown:
            hint = suggest_or_list(unknown[0], self.sources)
            more = f", nor {len(unknown) - 1} more columns" if len(unknown) > 1 else ""
            what = f"is no column that the run knows{more}; {hint}"
            found.append(Problem(place, cut(unknown[0]), what))
        if self.allow_missing:
            return found
        for name in self.sources:
            if name not in row:
                near = suggest(name, unknown)
                hint = f" ({near})" if near else ""
                what = f"is missing{hint}; write null where the value is not known"
                found.append(Problem(place, name, what))
        return found

    def _write(self, value: object, column: Column | None) -> str | None:
        """Returns a value as the run's file has it; None where it is missing.

        Raises:
            UserError: It is no single value.
        """
        if isinstance(value, str):
            text = value.strip()
            return None if text in self._missing else text
        if isinstance(value, bool):
            return write_truth(value, column)
        if isinstance(value, int | float):
            return write_number(value, column)
        if value is None:
            return None
        raise UserError(f"holds {name_type(value)}, where one value is expected")


def write_truth(value: bool, column: Column | None) -> str:
    """Writes true or false as the training rows have it."""
    text = str(value)
    if isinstance(column, Categorical):
        same = [word for word in column.vocabulary if word and word.lower() == text.lower()]
        return same[0] if same else text
    return text


def write_number(value: float, column: Column | None) -> str | None:
    """Writes a number with the mark before decimals that the column has; None for NaN."""
    if isinstance(value, float) and math.isnan(value):
        return None
    text = repr(value)
    if isinstance(column, Numeric) and isinstance(column.reads, NumberFormat):
        return text.replace(".", column.reads.decimal)
    return text


def find_bad_values(columns: Sequence[Column], frame: pd.DataFrame) -> list[Problem]:
    """Finds all values that their columns cannot have, row by row where a column has some."""
    found: dict[tuple[int, str], Problem] = {}
    for column in columns:
        series = frame[column.source]
        if say_wrong(column, series) is None:
            continue
        for place in range(len(series)):
            message = say_wrong(column, series.iloc[place : place + 1])
            if message is not None:
                # the parts of a date have one column, and one problem
                found.setdefault((place, column.source), Problem(place, column.source, message))
            if len(found) > MOST_PROBLEMS:
                return list(found.values())
    return list(found.values())


def say_wrong(column: Column, series: pd.Series) -> str | None:
    """Says what is wrong with the first bad value of a column; None where nothing is."""
    try:
        if isinstance(column, MemberColumn):
            column.encode(series, REQUEST)
        else:
            column.encode(series)
    except BadValue as error:
        return cut(str(error), 300)
    return None


def cut_problems(problems: Sequence[Problem]) -> list[Problem]:
    """Sorts problems by row, and leaves out those beyond a number that anybody reads."""
    ordered = sorted(problems, key=lambda problem: -1 if problem.row is None else problem.row)
    if len(ordered) <= MOST_PROBLEMS:
        return ordered
    last = Problem(None, None, f"there are more problems; the first {MOST_PROBLEMS} are listed")
    return [*ordered[:MOST_PROBLEMS], last]


def cut(text: str, most: int = 100) -> str:
    """Cuts what a client has written, which may be as long as a whole request."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def name_type(value: object) -> str:
    """Names the type of a value of JSON."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    return "a text" if isinstance(value, str) else "a number"


def describe_input(column: Column) -> InputDescription:
    """Describes an input column by its training rows."""
    if isinstance(column, Numeric):
        if not isinstance(column.reads, NumberFormat):
            form = column.reads.format
            return InputDescription(column.source, "date", f"written as {form}", (), None)
        form = "" if column.reads.plain else f"; as text: {column.reads}"
        details = f"{column.mean:.4g} +- {column.std:.4g} in the training rows{form}"
        example = float(f"{column.mean:.3g}")
        return InputDescription(column.source, "number", details, (), example)
    if isinstance(column, Categorical):
        words = [word for word in column.vocabulary if word is not None]
        details = f"{len(words)} words in the training rows; another one counts as unknown"
        first = words[0] if words else None
        return InputDescription(
            column.source, "category", details, tuple(words[:WORDS_SHOWN]), first
        )
    if isinstance(column, Text):
        details = f"the first {column.max_tokens} tokens count"
        return InputDescription(column.source, "text", details, (), "a text")
    kind = type(column).__name__.lower()
    return InputDescription(column.source, kind, f"read as {kind}", (), None)
