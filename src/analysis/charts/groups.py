"""Metrics by group: a panel for each task and metric, a point with its interval for each group."""

from collections.abc import Mapping, Sequence

import numpy as np

from src.analysis.charts.chart import FAINT, GRID, Chart, make_figure, use_style
from src.analysis.charts.labels import COLORS, clean_name, join_names
from src.analysis.fairness.groups import name_group
from src.analysis.fairness.measures import BIAS, GroupRow
from src.analysis.fairness.rates import RATES

NAME = "groups"
TITLE = "Metrics by group"
MOST = 40  # groups in the picture
MOST_PANELS = 12
HEIGHT = 0.19  # inches for each group


def draw_groups(rows: Sequence[GroupRow], monitors: Mapping[str, str]) -> Chart:
    """Draws the metric that counts for each task, its rates of decisions, and its bias.

    Args:
        rows: The metrics by group; groups without a value have a cross at the left.
        monitors: {task: the metric that counts}.
    """
    panels = choose_panels(rows, monitors)
    names = list(dict.fromkeys(name_group(row.groups) for row in rows))[:MOST]
    if not panels:
        return Chart(NAME, TITLE, "No group has a value.")
    count = len(panels)
    across = min(count, 3)
    down = -(-count // across)
    with use_style():
        figure = make_figure(down * (0.8 + HEIGHT * len(names)), 3.2 + 2.1 * across)
        grid = figure.subplots(down, across, sharey=True, squeeze=False).flatten()
        for axes, (task, metric) in zip(grid, panels, strict=False):
            own = {name_group(r.groups): r for r in rows if (r.task, r.metric) == (task, metric)}
            for place, name in enumerate(names):
                row = own.get(name)
                if row is None or row.value is None:
                    spot = axes.get_yaxis_transform()
                    axes.plot([0.02], [place], marker="x", color=FAINT, transform=spot)
                    continue
                color = COLORS[len(row.groups) % len(COLORS)]
                if row.low is not None and row.high is not None:
                    axes.plot([row.low, row.high], [place, place], color=color, linewidth=1.0)
                axes.plot([row.value], [place], marker="o", color=color, markersize=3.5)
            whole = own.get(names[0])
            if whole is not None and whole.value is not None:
                axes.axvline(whole.value, color=FAINT, linewidth=0.8, zorder=0)
            axes.set_title(f"{clean_name(task, 16)}: {clean_name(metric.replace('_', ' '), 22)}")
            axes.grid(axis="x", color=GRID)
        # the first group stands at the top
        grid[0].set_yticks(np.arange(len(names)), [clean_name(name, 34) for name in names])
        grid[0].invert_yaxis()
        for axes in grid[count:]:
            axes.set_visible(False)
    caption = (
        "Points are values of groups, with 95 % intervals over draws of the group's rows; the "
        "upright line is the value of all rows. A cross stands where a group has too few labels."
    )
    return Chart(NAME, TITLE, tell_widest(rows, panels), caption, figure)


def choose_panels(rows: Sequence[GroupRow], monitors: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns (task, metric) of the panels that have a value for some group."""
    known = dict.fromkeys((row.task, row.metric) for row in rows if row.value is not None)
    chosen = []
    for task, metric in known:
        kind = metric.partition(".")[0]
        if metric == monitors[task] or kind in (*RATES, BIAS):
            chosen.append((task, metric))
    # the metrics that count come first where there is no room for all
    chosen.sort(key=lambda key: key[1] != monitors[key[0]])
    kept = chosen[:MOST_PANELS]
    return sorted(kept, key=lambda key: list(monitors).index(key[0]))


def tell_widest(rows: Sequence[GroupRow], panels: Sequence[tuple[str, str]]) -> str:
    """Says for each panel which groups are the lowest and the highest."""
    parts = []
    for task, metric in panels:
        known = [
            (row.value, name_group(row.groups))
            for row in rows
            if (row.task, row.metric) == (task, metric) and row.groups and row.value is not None
        ]
        if len(known) > 1:
            low, high = min(known), max(known)
            words = metric.replace("_", " ")
            parts.append(
                f"{clean_name(task)} {words} from {low[0]:.3g} ({clean_name(low[1], 40)}) to "
                f"{high[0]:.3g} ({clean_name(high[1], 40)})"
            )
    return f"{join_names(parts, len(parts))}." if parts else "No two groups have values."
