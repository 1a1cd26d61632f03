"""The change from single-task networks by row, under both conventions, with intervals."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from src.analysis.charts.bounds import HINT, find_bounds, mark_beyond
from src.analysis.charts.chart import FAINT, INK, PAPER, Chart, make_figure, use_style
from src.analysis.charts.labels import clean_name, join_names

if TYPE_CHECKING:
    from pandas import DataFrame

TITLE = "Change from single-task networks"
# (convention, its words, offset from the middle of the row's line, face of the marker)
CONVENTIONS = (
    ("tasks", "mean over tasks", -0.13, INK),
    ("metrics", "mean over all metrics", 0.17, PAPER),
)


def draw_deltas(deltas: "DataFrame", references: Collection[str] = ()) -> Chart:
    """Draws a line per row: two means with their intervals, the best row on top.

    Args:
        deltas: row, convention ("tasks" or "metrics"), mean, low, high: in percent, higher is
            better; a row without an interval has NaN there.
        references: Rows that do not set the range of the axis.
    """
    known = deltas[np.isfinite(deltas["mean"].to_numpy(dtype=float))]
    by_tasks = known[known["convention"] == "tasks"].sort_values(
        "mean", ascending=False, kind="stable"
    )
    names = list(dict.fromkeys(by_tasks["row"]))
    if not names:
        return Chart("delta", TITLE, "No row can be compared with single-task networks.")
    places = {name: place for place, name in enumerate(names)}

    with use_style():
        figure = make_figure(0.95 + 0.32 * len(names))
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=0.8)
        drawn = known[known["row"].isin(places)]
        mean, low, high = drawn[["mean", "low", "high"]].to_numpy(dtype=float).T
        close = ~drawn["row"].isin(references).to_numpy(dtype=bool)
        left, right = find_bounds(mean, low, high, close)
        axes.set_xlim(min(left, 0), max(right, 0))
        beyond = False
        for convention, words, offset, face in CONVENTIONS:
            shown = known[(known["convention"] == convention) & known["row"].isin(places)]
            y = shown["row"].map(places).to_numpy(dtype=float) + offset
            mean = shown["mean"].to_numpy(dtype=float)
            axes.hlines(y, shown["low"], shown["high"], color=INK, linewidth=1.2)
            marker = "o" if convention == "tasks" else "s"
            axes.plot(
                mean,
                y,
                linestyle="none",
                marker=marker,
                color=INK,
                markerfacecolor=face,
                label=words,
            )
            beyond |= mark_beyond(axes, mean, y)

        # numbers of the first convention stand at the right
        for _, line in by_tasks.iterrows():
            text = f"{format_signed(line['mean'])} {describe_interval(line['low'], line['high'])}"
            place = (1.02, places[line["row"]])
            axes.text(*place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
        axes.set_yticks(range(len(names)), [clean_name(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        # spaces of a page are one space, wide ones are not
        gap = "\N{EM SPACE}" * 2
        axes.set_xlabel(f"← worse{gap}change from single-task networks, %{gap}better →")
        figure.legend(
            loc="outside upper left", ncols=2, frameon=False, handletextpad=0.2, labelcolor=INK
        )
        axes.spines["bottom"].set_color(FAINT)
    caption = (
        "Filled circles: the mean over tasks, each task's metrics averaged first; their numbers "
        "stand at the right. Open squares: the mean over all metrics. Lines are 95 % intervals."
    )
    caption += HINT if beyond else ""
    return Chart("delta", TITLE, tell_deltas(by_tasks), caption, figure)


def format_signed(value: float) -> str:
    """Returns a number with its sign, whose minus is as wide as a plus."""
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def describe_interval(low: float, high: float) -> str:
    """Returns [low, high] with signs; "" where there is none."""
    if not np.isfinite([low, high]).all():
        return ""
    return f"[{format_signed(low)}, {format_signed(high)}]"


def tell_deltas(ordered: "DataFrame") -> str:
    """Returns the finding in words.

    Args:
        ordered: row, mean, low, high; the best row first.
    """
    best = ordered.iloc[0]
    interval = describe_interval(best["low"], best["high"])
    parts = [
        f"Of {len(ordered)} rows, {clean_name(best['row'])} changes most for the better: "
        f"{format_signed(best['mean'])} % {interval}".rstrip()
        + " over tasks."
    ]
    above = [clean_name(row) for row in ordered[ordered["low"] > 0]["row"]]
    below = [clean_name(row) for row in ordered[ordered["high"] < 0]["row"]]
    within = ordered[(ordered["low"] <= 0) & (ordered["high"] >= 0)]
    if above:
        parts.append(f"The whole interval is above zero for {join_names(above)}.")
    if below:
        parts.append(f"The whole interval is below zero for {join_names(below)}.")
    if len(within):
        names = [clean_name(row) for row in within["row"]]
        parts.append(f"The interval includes zero for {join_names(names)}.")
    return " ".join(parts)
