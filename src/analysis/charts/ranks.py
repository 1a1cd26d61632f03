"""The critical-difference diagram: mean ranks, and bars over rows that do not differ."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.analysis.charts.chart import FAINT, INK, Chart, make_figure, use_style
from src.analysis.charts.labels import clean_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

TITLE = "Mean ranks, and groups without a significant difference"


def draw_ranks(ranks: "DataFrame", groups: Sequence[Sequence[str]], meaning: str) -> Chart:
    """Draws a critical-difference diagram as of Demsar (2006).

    Args:
        ranks: row, rank: 1 is best.
        groups: Rows that do not differ significantly from one another, two or more each.
        meaning: What is ranked and how groups are found.
    """
    known = ranks[np.isfinite(ranks["rank"].to_numpy(dtype=float))].sort_values(
        "rank", kind="stable"
    )
    if len(known) < 2:
        return Chart("ranks", TITLE, "Fewer than two rows have ranks.")
    names = list(known["row"])
    places = dict(zip(names, known["rank"].astype(float), strict=True))
    shown = [list(group) for group in groups if len(group) > 1]
    half = (len(names) + 1) // 2
    with use_style():
        figure = make_figure(0.75 + 0.17 * len(shown) + 0.24 * half)
        axes = figure.add_subplot()
        low = min(1.0, min(places.values()))
        high = max(float(len(names)), max(places.values()))
        axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("mean rank, 1 is best")
        axes.spines["top"].set_visible(True)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_yticks([])
        top = 0.6 + 0.7 * len(shown)
        for level, group in enumerate(shown):
            ends = [places[name] for name in group]
            y = 0.5 + 0.7 * level
            axes.hlines(y, min(ends), max(ends), color=INK, linewidth=3.5)
        for side, members in enumerate((names[:half], names[half:])):
            draw_side(axes, members, places, top, side == 1)
        axes.set_ylim(top + half, 0)
    finding = tell_ranks(places, shown)
    return Chart("ranks", TITLE, finding, meaning, figure)


def draw_side(
    axes: "Axes", names: list[str], places: dict[str, float], top: float, right: bool
) -> None:
    """Draws the labels of one side, each with a line down from its rank.

    Args:
        axes: The diagram.
        names: Rows of this side, the best first.
        places: {row: mean rank}.
        top: Where the labels begin.
        right: Whether this is the right side, whose outermost rank is its last.
    """
    ordered = names[::-1] if right else names
    edge = axes.get_xlim()[1 if right else 0]
    for line, name in enumerate(ordered):
        y = top + line + 0.2
        rank = places[name]
        axes.plot([rank, rank, edge], [0, y, y], color=FAINT, linewidth=0.8, clip_on=False)
        text = f"{rank:.2f}  {clean_name(name)}" if right else f"{clean_name(name)}  {rank:.2f}"
        axes.annotate(
            text,
            xy=(edge, y),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            annotation_clip=False,
        )


def tell_ranks(places: dict[str, float], groups: list[list[str]]) -> str:
    """Returns the finding in words."""
    names = list(places)
    text = (
        f"{clean_name(names[0])} has the best mean rank, {places[names[0]]:.2f}; "
        f"{clean_name(names[-1])} has the worst, {places[names[-1]]:.2f}."
    )
    for group in groups:
        # a group is without gaps in the order of ranks
        first, last = clean_name(group[0]), clean_name(group[-1])
        text += f" No significant difference from {first} to {last} ({len(group)} rows)."
    return text if groups else f"{text} No two rows are joined."
