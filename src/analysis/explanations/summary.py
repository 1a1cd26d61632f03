"""Attributions of many rows as a few numbers for each column, with intervals over rows."""

from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pandas import DataFrame

SPREAD = 1.96  # standard deviations on each side of a 95 % interval


class ColumnSummary(TypedDict):
    """A summary of the attributions of rows to one column.

    Attributes:
        column: The column.
        mean_abs: The mean of their absolute values.
        low: The lower end of its 95 % interval over rows.
        high: The upper end.
        mean: Their mean.
        mean_low: The lower end of its 95 % interval over rows.
        mean_high: The upper end.
        with_value: The correlation of the attribution with the value, for a column of numbers:
            above 0, larger values raise what is explained. None for other columns.
        share: The part of the sum over columns of ``mean_abs``.
    """

    column: str
    mean_abs: float
    low: float
    high: float
    mean: float
    mean_low: float
    mean_high: float
    with_value: float | None
    share: float


def summarise_columns(
    names: tuple[str, ...], attributions: Tensor, values: Tensor | None = None
) -> list[ColumnSummary]:
    """Summarises the attributions (N, columns) of rows, the most important column first.

    Args:
        names: The columns.
        attributions: The attributions.
        values: (N, columns) The numbers of the columns, NaN in columns of no number.
    """
    found: list[ColumnSummary] = []
    total = float(attributions.abs().mean(0).sum()) or 1.0
    for place, name in enumerate(names):
        own = attributions[:, place].double()
        size, half = estimate_mean(own.abs())
        mean, half_mean = estimate_mean(own)
        found.append(
            {
                "column": name,
                "mean_abs": size,
                "low": size - half,
                "high": size + half,
                "mean": mean,
                "mean_low": mean - half_mean,
                "mean_high": mean + half_mean,
                "with_value": None if values is None else correlate(own, values[:, place]),
                "share": size / total,
            }
        )
    return sorted(found, key=lambda one: -one["mean_abs"])


def estimate_mean(values: Tensor) -> tuple[float, float]:
    """Returns the mean of rows (N,), and half its normal interval of 95 %; NaN for one row."""
    half = SPREAD * float(values.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return float(values.mean()), half


def correlate(a: Tensor, b: Tensor) -> float | None:
    """Returns the correlation of two columns of rows (N,); None where one does not vary."""
    b = b.double()
    if torch.isnan(b).any() or len(a) < 2:
        return None
    a, b = a - a.mean(), b - b.mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else None


def summarise_words(
    words: list[list[str | None]], attributions: Tensor, least: int = 3
) -> "DataFrame":
    """Returns word, count, mean_abs, mean of attributions to tokens, the largest first.

    Args:
        words: The word of each token of each row, None at padding.
        attributions: (N, S).
        least: Words that stand fewer times are left out, unless all do.
    """
    from pandas import DataFrame

    lines = []
    for row, own in enumerate(words):
        for place, word in enumerate(own):
            if word is not None:
                lines.append((word, float(attributions[row, place])))
    frame = DataFrame(lines, columns=["word", "attribution"])
    groups = frame.groupby("word", sort=True)["attribution"]
    table = DataFrame(
        {
            "count": groups.size(),
            "mean_abs": groups.apply(lambda own: own.abs().mean()),
            "mean": groups.mean(),
        }
    )
    frequent = table[table["count"] >= least]
    chosen = frequent if len(frequent) else table
    return chosen.sort_values("mean_abs", ascending=False, kind="stable").reset_index()
