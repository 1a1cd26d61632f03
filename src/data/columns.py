"""Input columns: what each becomes, learnt from the training rows alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class BadValue(ValueError):
    """A value that a column cannot have; ``row`` counts from 0."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class Numeric:
    """(x - mean) / std, 0 where missing, with an indicator if values were missing in training."""

    column: str
    mean: float
    std: float
    indicator: bool

    @classmethod
    def fit(cls, series: pd.Series) -> Numeric:
        """Learns from the training rows."""
        values = to_numbers(series)
        known = values[~np.isnan(values)]
        std = float(known.std()) if known.min() < known.max() else 0.0  # equal values have rounding dust for a std
        return cls(str(series.name), float(known.mean()), std or 1.0, bool(np.isnan(values).any()))

    def encode(self, series: pd.Series) -> np.ndarray:
        """Returns (N, 1) or (N, 2) float32."""
        values = to_numbers(series)
        missing = np.isnan(values)
        columns = [np.where(missing, 0.0, (values - self.mean) / self.std)]
        if self.indicator:
            columns.append(missing.astype(float))
        return np.stack(columns, 1).astype(np.float32)


@dataclass(frozen=True)
class Categorical:
    """Positions in the training vocabulary; 0 is the bucket for values never seen in training."""

    column: str
    vocabulary: tuple[str | None, ...]  # None: missing was seen in training, and is a value of its own

    @classmethod
    def fit(cls, series: pd.Series) -> Categorical:
        """Learns from the training rows."""
        words = to_words(series)
        found = sorted({word for word in words if word is not None})
        return cls(str(series.name), (*found, *([None] if any(w is None for w in words) else [])))

    def encode(self, series: pd.Series) -> np.ndarray:
        """Returns (N,) int64."""
        place = {word: i + 1 for i, word in enumerate(self.vocabulary)}
        return np.array([place.get(word, 0) for word in to_words(series)], dtype=np.int64)

    @property
    def size(self) -> int:
        """Number of positions, the bucket included."""
        return len(self.vocabulary) + 1


DATE_PARTS = ("year", "month", "day", "day_of_week", "hour")


def expand_dates(series: pd.Series) -> dict[str, pd.Series]:
    """A date as numbers: year, month, day, day of the week, hour; parts that never change are dropped later as constants."""
    import pandas as pd

    dates = pd.to_datetime(series, errors="coerce", format="mixed")
    return {f"{series.name}.{part}": getattr(dates.dt, part).rename(f"{series.name}.{part}") for part in DATE_PARTS}


def to_numbers(series: pd.Series) -> np.ndarray:
    """A column as float64 with NaN for missing.

    Raises:
        BadValue: A text or an infinite value.
    """
    import pandas as pd

    numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    text = np.isnan(numbers) & series.notna().to_numpy()
    if text.any():
        row = int(text.argmax())
        raise BadValue(row, f"holds '{series.iloc[row]}' where a number is expected")
    if np.isinf(numbers).any():
        row = int(np.isinf(numbers).argmax())
        raise BadValue(row, f"holds {numbers[row]}, which is not finite")
    return numbers


def to_words(series: pd.Series) -> list[str | None]:
    """A column as words; whole numbers lose their decimal point, so that 3 and 3.0 are one word."""

    def word(value: Any) -> str:
        whole = isinstance(value, float) and value.is_integer()
        return str(int(value)) if whole else str(value)

    return [word(v) if known else None for v, known in zip(series.tolist(), series.notna(), strict=True)]


def numeric_share(series: pd.Series) -> float:
    """Share of the known values that are numbers."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(series):  # pandas takes them for nanoseconds
        return 0.0
    known = series.dropna()
    return float(pd.to_numeric(known, errors="coerce").notna().mean()) if len(known) else 0.0


def looks_like_dates(series: pd.Series) -> bool:
    """Whether a column of words reads as dates throughout."""
    import warnings

    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(series):
        return True
    known = series.dropna().head(200)
    if (
        not len(known)
        or not known.map(lambda v: isinstance(v, str) and any(c in v for c in "-/.:") and any(c.isdigit() for c in v)).all()
    ):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas tells that it had to guess the form
        return bool(pd.to_datetime(known, errors="coerce", format="mixed").notna().mean() > 0.9)


Column = Numeric | Categorical


def to_plain(column: Column) -> dict[str, Any]:
    """A column as plain values."""
    return {"kind": type(column).__name__.lower(), **asdict(column)}


def from_plain(values: dict[str, Any]) -> Column:
    """The column that :func:`to_plain` wrote down."""
    settings = {key: value for key, value in values.items() if key != "kind"}
    if values["kind"] == "numeric":
        return Numeric(**settings)
    return Categorical(settings["column"], tuple(settings["vocabulary"]))
