"""The range of an axis that a few rows far away, such as references, do not stretch."""

from typing import TYPE_CHECKING

import numpy as np

from src.analysis.charts.chart import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAR = 4.0  # spreads of the others, from which on a row is far away
HINT = " An arrowhead at the edge stands for a row that lies beyond it."


def find_bounds(
    mean: np.ndarray, low: np.ndarray, high: np.ndarray, close: np.ndarray | None = None
) -> tuple[float, float]:
    """Returns the range of an axis that shows the rows, without those far away.

    Args:
        mean: (n,) means; NaN is none.
        low: (n,) lower ends of intervals; NaN is none.
        high: (n,) upper ends.
        close: (n,) which rows set the range; None lets all of them.
    """
    known = np.isfinite(mean)
    setting = known & close if close is not None and (known & close).any() else known
    if not setting.any():
        return 0.0, 1.0
    # an outlier by the distance from the median in the middle half's own width
    first, middle, last = np.quantile(mean[setting], (0.25, 0.5, 0.75))
    widths = np.where(np.isfinite(high - low), high - low, 0.0)
    reach = FAR * max(last - first, float(np.median(widths[setting])))
    kept = setting & (np.abs(mean - middle) <= reach) if reach > 0 else setting
    bottom = np.nanmin([np.fmin(low, mean)[kept], mean[kept]])
    top = np.nanmax([np.fmax(high, mean)[kept], mean[kept]])
    margin = 0.05 * (top - bottom) or 0.05 * abs(top) or 0.05
    return float(bottom - margin), float(top + margin)


def mark_beyond(axes: "Axes", mean: np.ndarray, y: np.ndarray) -> bool:
    """Draws an arrowhead at the edge for each mean outside the x range; returns if any is."""
    left, right = axes.get_xlim()
    found = False
    inset = 0.012 * (right - left)
    sides = ((left + inset, "<", mean < left), (right - inset, ">", mean > right))
    for edge, marker, outside in sides:
        places = y[outside]
        # the layout cannot measure an empty line
        if not len(places):
            continue
        found = True
        axes.plot(
            np.full(len(places), edge),
            places,
            linestyle="none",
            marker=marker,
            color=INK,
            clip_on=False,
            markersize=6,
        )
    return found
