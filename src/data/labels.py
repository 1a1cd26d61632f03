"""Target columns: how their labels are written, and which kind of task each becomes, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from src.data.columns import bare_whole, to_words
from src.data.dates import date_formats, is_typed_date
from src.data.numbers import NumberFormat, Written, is_texts, without_words_for_none
from src.errors import UserError
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    Task,
)
from src.tasks.labels import Label

if TYPE_CHECKING:
    import pandas as pd

FEW_NUMBERS = 10  # whole numbers with at most this many values are classes
MOST_CLASSES = 200  # words with more values are free text, not classes
# a column with more numbers than this and few words is one of numbers with words for "missing"
MANY_NUMBERS = 20
FEW_WORDS = 5
CODE = r"[-+]?0\d\w*"  # 01, 007: a number would lose its zeros
WHOLE = r"[-+]?(?:0|[1-9]\d*)(?:\.0+)?"


@dataclass(frozen=True)
class Labels:
    """How the labels of one task are read.

    Attributes:
        columns: The columns of the file.
        single: Whether the task is one column, and not a list of them.
        classes: Whether labels are classes, words as written; else they are numbers.
        formats: How the numbers of each column are written; of classes none, unless all of them are
            numbers.
    """

    columns: tuple[str, ...]
    single: bool
    classes: bool
    formats: tuple[NumberFormat, ...]

    def to_plain(self) -> dict[str, Any]:
        """Returns plain values, for a schema."""
        return {
            **asdict(self),
            "columns": list(self.columns),
            "formats": [asdict(form) for form in self.formats],
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Labels:
        """Returns what :meth:`to_plain` wrote down."""
        formats = tuple(NumberFormat(**form) for form in values["formats"])
        return cls(tuple(values["columns"]), values["single"], values["classes"], formats)

    def values(self, frame: pd.DataFrame, known: Sequence[Label] = ()) -> np.ndarray:
        """Reads labels as a task takes them.

        Args:
            frame: Rows of the table.
            known: The classes of the task, where it has some: words become these, as their author
                wrote them.

        Returns:
            (N,) or (N, L): floats with NaN where missing, or classes with None.

        Raises:
            BadValue: A text that is no number.
        """
        if self.classes:
            series = [frame[column] for column in self.columns]
            if self.formats:
                series = [
                    without_words_for_none(part) if is_texts(part) else part for part in series
                ]
            parts = [class_labels(part, known) for part in series]
        else:
            parts = [
                form.numbers(frame[c]) for c, form in zip(self.columns, self.formats, strict=True)
            ]
        return parts[0] if self.single else np.stack(parts, 1)


def class_labels(series: pd.Series, known: Sequence[Label] = ()) -> np.ndarray:
    """Labels of one column as classes: (N,) objects, None where missing.

    Words stay as written, so that 01 and 1 are two classes. Where all are whole numbers they are
    integers, 3.0 being 3.
    """
    import pandas as pd

    words = to_words(series)
    codes, uniques = pd.factorize(words)
    if known:
        place: dict[str, Label] = {}
        for label in known:
            place.setdefault(bare_whole(str(label)), label)
        place |= {str(label).lower(): label for label in known if isinstance(label, bool)}
        place |= {str(label): label for label in known}
        found: list[Label] = [
            place.get(word, place.get(bare_whole(word), word)) for word in uniques
        ]
        return np.array([*found, None], dtype=object)[codes]
    whole = all(re.fullmatch(WHOLE, word) for word in uniques)
    found = [int(bare_whole(word)) if whole else word for word in uniques]
    return np.array([*found, None], dtype=object)[codes]


def is_codes(series: pd.Series) -> bool:
    """Whether numbers of a column have leading zeros, so that they are codes."""
    return is_texts(series) and bool(series.str.fullmatch(CODE).any())


def infer_kind(frame: pd.DataFrame, written: Mapping[str, Written]) -> tuple[type[Task], str]:
    """Says which kind of task the target columns of the training rows are, and the reason.

    Args:
        frame: The target's columns.
        written: How the numbers of each are written.

    Raises:
        UserError: They fit no kind.
    """
    columns = [str(name) for name in frame.columns]
    if len(columns) > 1:
        if any(written[c].share < 1 for c in columns):
            raise UserError(
                "the columns are neither all 0 and 1 (multi-label) nor all numbers (vector regression)"
            )
        numbers = np.stack([number_format(written[c]).numbers(frame[c]) for c in columns])
        if set(np.unique(numbers[~np.isnan(numbers)])) <= {0.0, 1.0}:
            return MultilabelClassification, f"{len(columns)} columns of 0 and 1"
        return Regression, f"{len(columns)} columns of numbers"
    series, how = frame[columns[0]], written[columns[0]]
    if how.share == 1 and is_texts(series):
        series = without_words_for_none(series)
    if is_typed_date(series) or (how.share < 1 and date_formats(series)):
        raise UserError(
            "holds dates, which no task predicts: derive a number from it, such as days since a date"
        )
    found = distinct_labels(series)
    if len(found) == 1:
        raise UserError(
            f"has the single value '{found[0]}' in the training split; there is nothing to learn"
        )
    if how.share == 1 and not is_codes(series):
        numbers = number_format(how).numbers(series)
        several = np.unique(numbers[~np.isnan(numbers)])
        if len(several) > 2:
            if len(several) <= FEW_NUMBERS and all(isinstance(label, int) for label in found):
                return Classification, f"{len(found)} whole numbers: {shown(found)}"
            return Regression, f"{len(several)} different numbers"
    else:
        refuse_mixture(series, how, "its kind in data.tasks")
    if len(found) == 2:
        return BinaryClassification, f"two values: {found[0]}, {found[1]}"
    if len(found) > MOST_CLASSES:
        raise UserError(
            f"has {len(found)} different texts, too many for classes; set its kind in data.tasks"
        )
    return Classification, f"{len(found)} values: {shown(found)}"


def distinct_labels(series: pd.Series) -> tuple[Label, ...]:
    """The classes of a column without repeats, in order."""
    labels = {label for label in class_labels(series) if label is not None}
    return tuple(sorted(labels, key=lambda label: (isinstance(label, str), label)))


def number_format(written: Written) -> NumberFormat:
    """How numbers are written; plainly, where none has told."""
    return written.format or NumberFormat()


def refuse_mixture(series: pd.Series, written: Written, otherwise: str) -> None:
    """Looks for a column of many numbers with a few words that seem to mean that a value is missing.

    Args:
        series: The column's training rows.
        written: How its numbers are written.
        otherwise: Where to say that it holds words indeed.

    Raises:
        UserError: It is one.
    """
    if not 0 < written.share < 1 or written.format is None:
        return
    counts = without_words_for_none(series).dropna().value_counts()
    numbers = ~np.isnan(written.format.read(counts.index.to_series()))
    words = counts[~numbers]
    if numbers.sum() > MANY_NUMBERS and len(words) <= FEW_WORDS:
        share = words.sum() / counts.sum()
        names = ", ".join(words.index)
        raise UserError(
            f"holds numbers, but '{words.index[0]}' and the like in {share:.0%} of the rows: if that means a missing value, "
            f"set --data.missing '[{names}]'; if not, set {otherwise}"
        )


def shown(values: tuple[Label, ...]) -> str:
    """The first few of many."""
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
