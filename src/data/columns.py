"""Input columns: what each becomes, learnt from the training rows alone."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from src.data.dates import DatePart
from src.data.numbers import BadValue, NumberFormat, is_texts, typed_numbers

if TYPE_CHECKING:
    import pandas as pd

# standard deviations from the mean beyond which the layers of a network lose all else in single
# precision
FARTHEST = 1e9


@dataclass(frozen=True)
class Numeric:
    """(x - mean) / std, 0 where missing, with an indicator if values were missing in training.

    Attributes:
        column: Its name for people; of a part of a date it has the part behind it.
        source: The column of the file.
        reads: How a text of the column becomes a number.
        mean: Mean of the known values of the training rows.
        std: Their standard deviation; 1 where they are all the same.
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
            BadValue: A text that is no number.
        """
        values = reads.numbers(series)
        known = values[~np.isnan(values)]
        # equal values have rounding dust for a standard deviation
        std = float(known.std()) if known.min() < known.max() else 0.0
        mean = float(known.mean())
        return cls(column, str(series.name), reads, mean, std or 1.0, bool(np.isnan(values).any()))

    def encode(self, series: pd.Series) -> np.ndarray:
        """Returns (N, 1) or (N, 2) float32.

        Raises:
            BadValue: A text that is no number, or a number far from all that training has seen.
        """
        values = self.reads.numbers(series)
        missing = np.isnan(values)
        standard = np.where(missing, 0.0, (values - self.mean) / self.std)
        far = np.abs(standard) > FARTHEST
        if far.any():
            row = int(far.argmax())
            raise BadValue(
                row,
                f"holds {values[row]:g}, where the training rows have {self.mean:.3g} +- {self.std:.3g}: not finite for a network",
            )
        columns = [standard]
        if self.indicator:
            columns.append(missing.astype(float))
        return np.stack(columns, 1).astype(np.float32)


@dataclass(frozen=True)
class Categorical:
    """Positions in the training vocabulary; 0 is the bucket for values never seen in training.

    Attributes:
        column: The column of the file.
        vocabulary: The words of the training rows, as written; None: missing was seen in training,
            and is a value of its own.
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
        found = sorted(words.dropna().unique().tolist())
        return cls(str(series.name), (*found, *([None] if words.isna().any() else [])))

    def encode(self, series: pd.Series) -> np.ndarray:
        """Returns (N,) int64."""
        return positions(to_words(series), self.vocabulary) + 1

    @property
    def size(self) -> int:
        """Number of positions, the bucket included."""
        return len(self.vocabulary) + 1


Column = Numeric | Categorical


def positions(words: pd.Series, vocabulary: tuple[str | None, ...]) -> np.ndarray:
    """Returns the place of each word in a vocabulary, -1 where it has none: (N,) int64.

    A word counts as written. Only where it is not there, 3.0 is looked up as 3, and 3 as 3.0:
    programs write whole numbers both ways, as other rows of the file have gaps or not.
    """
    import pandas as pd

    place: dict[str | None, int] = {}
    for i, word in enumerate(vocabulary):
        if word is not None:
            place.setdefault(bare_whole(word), i)
    place |= {word: i for i, word in enumerate(vocabulary)}
    codes, uniques = pd.factorize(words)
    found = [place.get(word, place.get(bare_whole(word), -1)) for word in uniques]
    lookup = np.array(
        [*found, place.get(None, -1)], dtype=np.int64
    )  # a code of -1 is a missing value
    return lookup[codes]


def bare_whole(word: str) -> str:
    """A whole number without its decimals and its plus; other words as they are."""
    return re.sub(r"^(?:\+(?=\d))?(-?(?:0|[1-9]\d*))(?:\.0+)?$", r"\1", word)


def to_words(series: pd.Series) -> pd.Series:
    """A column as words, missing values missing: texts as written, whole numbers of typed files without a decimal point."""
    import pandas as pd

    if is_texts(series):
        return series
    if typed_numbers(series) is None:
        return series.astype("str").where(series.notna())
    codes, uniques = pd.factorize(series)
    words = [bare_whole(str(value)) for value in uniques]
    taken = np.array([*words, None], dtype=object)[codes]
    return pd.Series(taken, index=series.index, name=series.name, dtype="str")


def to_plain(column: Column) -> dict[str, Any]:
    """A column as plain values."""
    return {"kind": type(column).__name__.lower(), **asdict(column)}


def from_plain(values: dict[str, Any]) -> Column:
    """The column that :func:`to_plain` wrote down."""
    settings = {key: value for key, value in values.items() if key != "kind"}
    if values["kind"] == "numeric":
        reads = settings.pop("reads")
        return Numeric(
            reads=DatePart(**reads) if "part" in reads else NumberFormat(**reads), **settings
        )
    return Categorical(settings["column"], tuple(settings["vocabulary"]))
