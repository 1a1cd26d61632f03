"""Target columns: how their labels are written, and which kind of task each becomes, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from src.data.tables.bounds import find_bound, read_bounds
from src.data.tables.columns import simplify_whole, to_words
from src.data.tables.dates import find_date_formats, is_typed_date
from src.data.tables.number_formats import Written
from src.data.tables.numbers import NumberFormat, is_texts, mask_words_for_missing
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
# a column with more numbers than this and few words holds numbers, and words for "missing"
MANY_NUMBERS = 20
FEW_WORDS = 5
CODE = r"[-+]?0\d\w*"  # 01, 007: as a number it would lose its zeros
WHOLE = r"[-+]?(?:0|[1-9]\d*)(?:\.0+)?"


@dataclass(frozen=True)
class Labels:
    """How the labels of one task are read.

    Attributes:
        columns: The columns of the file.
        single: Whether the task is given as one column, and not as a list of columns.
        classes: Whether labels are classes, which are words as written; else they are numbers.
        formats: How the numbers of each column are written. Classes have none unless all of them
            are numbers.
    """

    columns: tuple[str, ...]
    single: bool
    classes: bool
    formats: tuple[NumberFormat, ...]

    def to_plain(self) -> dict[str, Any]:
        """Returns plain values, for a schema."""
        formats = [asdict(form) for form in self.formats]
        return {**asdict(self), "columns": list(self.columns), "formats": formats}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Labels:
        """Returns the labels that :meth:`to_plain` wrote down."""
        formats = tuple(NumberFormat(**form) for form in values["formats"])
        return cls(tuple(values["columns"]), values["single"], values["classes"], formats)

    def values(
        self, frame: pd.DataFrame, known: Sequence[Label] = (), forms: Sequence[str] = ()
    ) -> np.ndarray:
        """Reads labels in the form that a task encodes.

        Args:
            frame: Rows of the table.
            known: The classes of the task, if it has some: words become these, as their author
                wrote them.
            forms: How each column is read, see :func:`src.data.kinds.read_forms`; without them
                as ``classes`` says.

        Returns:
            (N,) or (N, L): floats with NaN where missing, or objects with None: classes, and texts
            such as '>10' among numbers.

        Raises:
            BadValue: A text is no number.
        """
        read = []
        for i, column in enumerate(self.columns):
            series = frame[column]
            form = forms[i] if forms else "class" if self.classes else "number"
            if form == "number":
                read.append(self.formats[i].numbers(series))
                continue
            if form == "bound":
                read.append(read_bounds(series, self.formats[i]))
                continue

            # classes that are all numbers: '-' and the like are missing, not a class
            if self.formats and is_texts(series):
                series = mask_words_for_missing(series)
            read.append(read_classes(series, known))
        return read[0] if self.single else np.stack(read, 1)


def read_classes(series: pd.Series, known: Sequence[Label] = ()) -> np.ndarray:
    """Reads the labels of one column as classes: (N,) objects, None where missing.

    Words stay as written, so that 01 and 1 are two classes. If all are whole numbers, they become
    integers, and 3.0 is 3.

    Args:
        series: The column.
        known: The classes of the task, if it has some: words become these.
    """
    import pandas as pd

    codes, uniques = pd.factorize(to_words(series))
    found: list[Label]
    if known:
        # as written counts most, then true and false in any case, then 3.0 for 3
        place: dict[str, Label] = {}
        for label in known:
            place.setdefault(simplify_whole(str(label)), label)
        place |= {str(label).lower(): label for label in known if isinstance(label, bool)}
        place |= {str(label): label for label in known}
        found = [place.get(word, place.get(simplify_whole(word), word)) for word in uniques]
    else:
        whole = all(re.fullmatch(WHOLE, word) for word in uniques)
        found = [int(simplify_whole(word)) if whole else word for word in uniques]

    # factorize gives a missing value the code -1, which indexes the last entry
    return np.array([*found, None], dtype=object)[codes]


def holds_codes(series: pd.Series) -> bool:
    """Returns whether numbers of a column have leading zeros, and so are codes."""
    return is_texts(series) and bool(series.str.fullmatch(CODE).any())


def infer_kind(frame: pd.DataFrame, written: Mapping[str, Written]) -> tuple[type[Task], str]:
    """Infers the kind of task from the target columns of the training rows.

    Args:
        frame: The target's columns.
        written: How the numbers of each are written.

    Returns:
        The kind, and the reason for it in words.

    Raises:
        UserError: The columns fit no kind.
    """
    columns = [str(name) for name in frame.columns]
    # several columns are one task only if all of them are numbers
    if len(columns) == 1:
        return infer_kind_of_column(frame[columns[0]], written[columns[0]])

    if any(written[c].share < 1 for c in columns):
        raise UserError(
            "the columns are neither all 0 and 1 (multi-label) nor all numbers (vector regression)"
        )
    numbers = np.stack([get_format(written[c]).numbers(frame[c]) for c in columns])
    if set(np.unique(numbers[~np.isnan(numbers)])) <= {0.0, 1.0}:
        return MultilabelClassification, f"{len(columns)} columns of 0 and 1"
    return Regression, f"{len(columns)} columns of numbers"


def infer_kind_of_column(series: pd.Series, written: Written) -> tuple[type[Task], str]:
    """Infers the kind of task from one column; see :func:`infer_kind`."""
    if written.share == 1 and is_texts(series):
        series = mask_words_for_missing(series)
    if is_typed_date(series) or (written.share < 1 and find_date_formats(series)):
        raise UserError(
            "holds dates, which no task predicts: "
            "derive a number from it, such as days since a date"
        )
    classes = find_classes(series)
    bound = find_bound(series, written.format)
    if bound is not None and len(classes) > FEW_NUMBERS:
        raise UserError(describe_bound(bound))
    if len(classes) == 1:
        raise UserError(
            f"has the single value '{classes[0]}' in the training split; there is nothing to learn"
        )

    # few whole numbers are classes, other numbers are measured; two values are a class anyway
    if written.share == 1 and not holds_codes(series):
        numbers = get_format(written).numbers(series)
        distinct = len(np.unique(numbers[~np.isnan(numbers)]))
        all_whole = all(isinstance(label, int) for label in classes)
        if 2 < distinct <= FEW_NUMBERS and all_whole:
            return Classification, f"{len(classes)} whole numbers: {list_few(classes)}"
        if distinct > 2:
            return Regression, f"{distinct} different numbers"
    else:
        refuse_mixture(series, written, "its kind in data.tasks")

    if len(classes) == 2:
        return BinaryClassification, f"two values: {classes[0]}, {classes[1]}"
    if len(classes) > MOST_CLASSES:
        raise UserError(
            f"has {len(classes)} different texts, too many for classes; set its kind in data.tasks"
        )
    return Classification, f"{len(classes)} values: {list_few(classes)}"


def describe_bound(bound: str) -> str:
    """Says which kind of task reads bounds."""
    return (
        f"holds '{bound}', a bound, among numbers: set its kind in data.tasks to "
        "CensoredRegression, or to Classification where these are classes"
    )


def find_classes(series: pd.Series) -> tuple[Label, ...]:
    """Returns the distinct classes of a column, numbers in order and then words."""
    labels = {label for label in read_classes(series) if label is not None}
    return tuple(sorted(labels, key=lambda label: (isinstance(label, str), label)))


def get_format(written: Written) -> NumberFormat:
    """Returns how numbers are written; plainly, if the column does not tell."""
    return written.format or NumberFormat()


def refuse_mixture(series: pd.Series, written: Written, otherwise: str) -> None:
    """Refuses a column of many numbers with a few words that seem to mean "missing".

    Args:
        series: The column's training rows.
        written: How its numbers are written.
        otherwise: The key that says that it holds words indeed.

    Raises:
        UserError: It is one.
    """
    if not 0 < written.share < 1 or written.format is None:
        return
    counts = mask_words_for_missing(series).dropna().value_counts()
    numbers = ~np.isnan(written.format.read_texts(counts.index.to_series()))
    words = counts[~numbers]
    if numbers.sum() > MANY_NUMBERS and len(words) <= FEW_WORDS:
        share = words.sum() / counts.sum()
        names = ", ".join(words.index)
        raise UserError(
            f"holds numbers, but '{words.index[0]}' and the like in {share:.0%} of the rows: "
            f"if that means a missing value, set --data.missing '[{names}]'; "
            f"if not, set {otherwise}"
        )


def list_few(values: tuple[Label, ...]) -> str:
    """Lists the first few of many values."""
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
