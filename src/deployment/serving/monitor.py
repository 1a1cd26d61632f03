"""Shift of inputs and predictions against the training rows, while a server runs."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from src.data.rows import LazyValues, Values
from src.deployment.serving.service import Columns
from src.models.feature_selection import InputColumn

LEVELS = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)  # quantiles that are compared
Features = Mapping[str, Tensor]
Inputs = Values | Mapping[str, Values]


@dataclass(frozen=True)
class ReferenceRows:
    """Training rows that later rows are compared with.

    Attributes:
        inputs: Their inputs.
        predictions: Their predictions by column.
    """

    inputs: Inputs
    predictions: Columns


class ShiftMonitor:
    """Writes to TensorBoard how far the rows of clients are from the training rows.

    Of a column of numbers it is the Wasserstein distance, the mean difference of quantiles, in
    standard deviations of the training rows; of a column of words the total variation distance,
    half the sum of |p - q|. The distance of as many training rows drawn at random stands beside: a
    small number of rows is never quite like the rest.

    Args:
        columns: The input columns; texts, images and graphs among them are not compared.
        reference: Training rows.
        every: Rows of clients that are compared at once. No more are kept.
        folder: Where event files go.
    """

    def __init__(
        self,
        columns: Sequence[InputColumn],
        reference: ReferenceRows,
        every: int,
        folder: Path,
    ) -> None:
        self.columns = [column for column in columns if not column.whole]
        self.every = every
        self.rows = 0  # seen so far
        self._words: dict[str, dict[object, int]] = {}
        self._reference = self._read(reference.inputs, reference.predictions)
        self._kept: list[Features] = []
        self._lock = threading.Lock()
        self._writer = SummaryWriter(str(folder))

    def add(self, inputs: Inputs, columns: Columns) -> None:
        """Sees the inputs of some rows, and their predictions by column."""
        with self._lock:
            features = self._read(inputs, columns)
            self._kept.append(features)
            if sum(map(count_rows, self._kept)) >= self.every:
                self._write()

    def close(self) -> None:
        """Compares the rows that are left, and closes the file."""
        with self._lock:
            if self._kept:
                self._write()
            self._writer.close()

    def _read(self, inputs: Inputs, predictions: Columns) -> Features:
        """Returns {tag: (N,) or (N, P)}: float64 for numbers, int64 for words."""
        found: dict[str, Tensor] = {}
        for column in self.columns:
            values = take_column(inputs, column)
            if values is not None:
                found[f"input_shift/{column.name}"] = values
        for name, cells in predictions.items():
            tag = f"prediction_shift/{name}"
            if all(isinstance(cell, int | float) for cell in cells):
                found[tag] = torch.tensor(cells, dtype=torch.float64)
            elif all(isinstance(cell, str) for cell in cells):
                found[tag] = self._number(tag, cells)
        return found

    def _number(self, tag: str, words: Sequence[object]) -> Tensor:
        """Returns words as numbers, counted in the order in which they first came."""
        known = self._words.setdefault(tag, {})
        return torch.tensor([known.setdefault(word, len(known)) for word in words])

    def _write(self) -> None:
        """Compares the rows that are kept, and forgets them."""
        count = sum(map(count_rows, self._kept))
        self.rows += count
        drawn = draw_rows(count_rows(self._reference), count, self.rows)
        for tag, reference in self._reference.items():
            own = torch.cat([features[tag] for features in self._kept if tag in features])
            if not len(own):
                continue
            self._writer.add_scalar(tag, measure_shift(reference, own), self.rows)
            chance = measure_shift(reference, reference[drawn])
            where, _, name = tag.partition("/")
            self._writer.add_scalar(f"{where}_by_chance/{name}", chance, self.rows)
        self._writer.flush()
        self._kept.clear()


def take_column(inputs: Inputs, column: InputColumn) -> Tensor | None:
    """Returns the numbers (N, P) or the categories (N,) of a column; None where there are none."""
    prefix = f"{column.member}/" if column.member else ""
    if isinstance(inputs, Mapping):
        key = "categorical" if column.categories else "dense"
        values = inputs.get(f"{prefix}{key}")
    else:
        values = inputs
    if values is None or isinstance(values, LazyValues):
        return None
    if column.categories:
        return values[:, column.categories[0]]
    return values[:, list(column.dense)].double()


def count_rows(features: Features) -> int:
    """Returns the number of rows."""
    return len(next(iter(features.values()))) if features else 0


def draw_rows(rows: int, count: int, seed: int) -> Tensor:
    """Draws rows with replacement."""
    return torch.randint(rows, (count,), generator=torch.Generator().manual_seed(seed))


def measure_shift(reference: Tensor, own: Tensor) -> float:
    """Returns how far values are from those of the training rows, 0 where they are alike.

    Args:
        reference: (N,) or (N, P) of the training rows: float64 for numbers, int64 for words.
        own: (M,) or (M, P).
    """
    measure: Callable[[Tensor, Tensor], float] = measure_numbers
    if not reference.dtype.is_floating_point:
        measure = measure_words
    if reference.ndim == 1:
        return measure(reference, own)
    # a number and the indicator of its missing values are one column
    return max(measure(reference[:, k], own[:, k]) for k in range(reference.shape[1]))


def measure_numbers(reference: Tensor, own: Tensor) -> float:
    """Returns the Wasserstein distance of numbers, in standard deviations of the reference."""
    known = reference[~reference.isnan()]
    seen = own[~own.isnan()]
    if not len(known) or not len(seen):
        return float("nan")
    spread = known.std(correction=0)
    distance = (known.quantile(LEVELS) - seen.quantile(LEVELS)).abs().mean()
    return float(distance / spread) if spread > 0 else float(distance)


def measure_words(reference: Tensor, own: Tensor) -> float:
    """Returns the total variation distance of words, from 0 to 1."""
    size = int(max(reference.max(), own.max())) + 1
    p = reference.bincount(minlength=size).double() / len(reference)
    q = own.bincount(minlength=size).double() / len(own)
    return float((p - q).abs().sum() / 2)
