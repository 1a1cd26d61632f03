"""Encoders of input columns, which learn from the training rows alone."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from src.batch import InputShape
from src.data.rows import Inputs
from src.data.tables.dates import DatePart
from src.data.tables.numbers import BadValue, NumberFormat, is_texts, read_typed_numbers

if TYPE_CHECKING:
    import pandas as pd

# standard deviations from the mean; a larger input would swamp all others in single precision
FARTHEST = 1e9


@dataclass(frozen=True)
class Numeric:
    """A column of numbers: (x - mean) / std, and 0 where missing.

    An indicator of missing values follows if training had some.

    Attributes:
        column: Its name for people; for a part of a date, with the name of the part.
        source: The column of the file.
        reads: How a text of the column becomes a number.
        mean: Mean of the known values of the training rows.
        std: Their standard deviation; 1 if they are all the same.
        indicator: Whether a second number says that the value is missing.
    """

    column: str
    source: str
    reads: NumberFormat | DatePart
    mean: float
    std: float
    indicator: bool

    @classmethod
    def fit(cls, column: str, series: pd.Series, reads: NumberFormat | DatePart) -> Numeric:
        """Learns from the training rows.

        Raises:
            BadValue: A text is no number.
        """
        values = reads.numbers(series)
        known = values[~np.isnan(values)]

        # the computed standard deviation of equal values is rounding, not 0
        std = float(known.std()) if known.min() < known.max() else 0.0
        mean = float(known.mean())
        return cls(column, str(series.name), reads, mean, std or 1.0, bool(np.isnan(values).any()))

    def encode(self, series: pd.Series) -> np.ndarray:
        """Returns (N, 1) or (N, 2) float32.

        Raises:
            BadValue: A text is no number, or a number is far from all of training.
        """
        values = self.reads.numbers(series)
        missing = np.isnan(values)
        standard = np.where(missing, 0.0, (values - self.mean) / self.std)
        far = np.abs(standard) > FARTHEST
        if far.any():
            row = int(far.argmax())
            seen = f"{self.mean:.3g} +- {self.std:.3g}"
            raise BadValue(
                row,
                f"holds {values[row]:g}, where the training rows have {seen}: "
                "not finite for a network",
            )
        columns = [standard]
        if self.indicator:
            columns.append(missing.astype(float))
        return np.stack(columns, 1).astype(np.float32)

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the column with the fields of a schema's entry."""
        # JSON has dicts for formats
        reads = settings["reads"]
        form = DatePart(**reads) if "part" in reads else NumberFormat(**reads)
        return cls(**{**settings, "reads": form})


@dataclass(frozen=True)
class Categorical:
    """A column of categories: positions in the training vocabulary, 0 for values not in it.

    Attributes:
        column: The column of the file.
        vocabulary: The words of the training rows, as written. None among them is a missing value,
            which is a category of its own if training had some.
    """

    column: str
    vocabulary: tuple[str | None, ...]

    @property
    def source(self) -> str:
        """The column of the file."""
        return self.column

    @classmethod
    def fit(cls, series: pd.Series) -> Categorical:
        """Learns from the training rows."""
        words = to_words(series)
        vocabulary = sorted(words.dropna().unique().tolist())
        if words.isna().any():
            vocabulary.append(None)
        return cls(str(series.name), tuple(vocabulary))

    def encode(self, series: pd.Series) -> np.ndarray:
        """Returns (N,) int64."""
        return find_positions(to_words(series), self.vocabulary) + 1

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the column with the fields of a schema's entry."""
        return cls(settings["column"], tuple(settings["vocabulary"]))

    @property
    def size(self) -> int:
        """Number of positions, with the bucket for values that are not in the vocabulary."""
        return len(self.vocabulary) + 1


@dataclass(frozen=True)
class MemberColumn(ABC):
    """A column that is an input of its own, as a text or an image is.

    All numeric and categorical columns of a table together are one input. A sample with several
    inputs has each under a name, which is that of the column, without a slash or a dot.

    Attributes:
        reads_files: Whether its values name files, beside the table or elsewhere.
        column: The column of the file.
    """

    reads_files: ClassVar[bool] = False

    column: str

    @property
    def source(self) -> str:
        """The column of the file."""
        return self.column

    @property
    @abstractmethod
    def shape(self) -> InputShape:
        """The shape of one sample."""

    @abstractmethod
    def encode(self, series: pd.Series, path: str) -> tuple[Inputs, list[str]]:
        """Encodes the values of all rows of a file.

        Args:
            series: (N,) values; a missing one is NaN or None.
            path: The file.

        Returns:
            The inputs, with N rows, in the form that a network with this input alone has; and
            remarks on them, one line each.

        Raises:
            BadValue: A value is impossible; the message continues "column ...".
        """

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the column with the fields of a schema's entry; JSON has lists for tuples."""
        return cls(**settings)


Column = Numeric | Categorical | MemberColumn
TABLE = "table"  # the member of numeric and categorical columns


def measure_columns(columns: Sequence[Column]) -> InputShape:
    """Returns the shape of the inputs that columns become."""
    members = [(name_member(c), c.shape) for c in columns if isinstance(c, MemberColumn)]
    if len(members) < len(columns):
        numeric = [column for column in columns if isinstance(column, Numeric)]
        categorical = [column for column in columns if isinstance(column, Categorical)]
        sizes = tuple(column.size for column in categorical)
        # a part of a date belongs to the column of the date
        names = [column.source for column in numeric for _ in range(1 + column.indicator)]
        names += [column.source for column in categorical]
        shape = InputShape((len(names) - len(sizes),), sizes, columns=tuple(names))
        members.insert(0, (TABLE, shape))
    return members[0][1] if len(members) == 1 else InputShape(members=tuple(members))


def name_member(column: MemberColumn) -> str:
    """Returns the name of an input: that of its column, as parts of keys and modules may be."""
    name = re.sub(r"[^\w-]+", "_", column.column).strip("_") or "column"
    return f"{name}_" if name == TABLE else name


def find_positions(words: pd.Series, vocabulary: Sequence[str | None]) -> np.ndarray:
    """Returns the position of each word in a vocabulary, -1 where it has none: (N,) int64.

    Words are compared as written. Only if a word is not found, 3.0 is looked up as 3, and 3 as 3.0:
    programs write whole numbers with decimals if other rows of the column have gaps.
    """
    import pandas as pd

    place: dict[str | None, int] = {}
    for i, word in enumerate(vocabulary):
        if word is not None:
            place.setdefault(simplify_whole(word), i)
    place |= {word: i for i, word in enumerate(vocabulary)}

    codes, uniques = pd.factorize(words)
    found = [place.get(word, place.get(simplify_whole(word), -1)) for word in uniques]

    # factorize gives a missing value the code -1, which indexes the last entry
    lookup = np.array([*found, place.get(None, -1)], dtype=np.int64)
    return lookup[codes]


def simplify_whole(word: str) -> str:
    """Removes the zero decimals and the plus sign of a whole number; other words stay."""
    return re.sub(r"^(?:\+(?=\d))?(-?(?:0|[1-9]\d*))(?:\.0+)?$", r"\1", word)


def to_words(series: pd.Series) -> pd.Series:
    """Returns a column as words, with missing values missing.

    Texts stay as written. Whole numbers of typed files have no decimal point.
    """
    import pandas as pd

    if is_texts(series):
        return series
    if read_typed_numbers(series) is None:
        return series.astype("str").where(series.notna())
    codes, uniques = pd.factorize(series)
    words = [simplify_whole(str(value)) for value in uniques]
    taken = np.array([*words, None], dtype=object)[codes]
    return pd.Series(taken, index=series.index, name=series.name, dtype="str")


def name_kind(kind: type[Column]) -> str:
    """Returns the name of a kind of column in a schema."""
    return kind.__name__.lower()


def to_plain(column: Column) -> dict[str, Any]:
    """Returns a column as plain values, for a schema."""
    return {"kind": name_kind(type(column)), **asdict(column)}


def from_plain(
    values: Mapping[str, Any], kinds: Sequence[type[Column]] = (Numeric, Categorical)
) -> Column:
    """Returns the column that :func:`to_plain` wrote down.

    Args:
        values: The entry of a schema.
        kinds: The kinds of column that it may be.
    """
    kind = {name_kind(kind): kind for kind in kinds}[values["kind"]]
    return kind.from_plain({key: value for key, value in values.items() if key != "kind"})
