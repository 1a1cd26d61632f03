"""The importance of inputs: a panel for each task, a bar for each column with its interval."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from src.analysis.charts.chart import use_style
from src.analysis.importance import Importance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 15  # columns in a panel


def draw_importance(found: Sequence[Importance]) -> "Figure":
    """Draws the most important columns of each task, by the first of the methods."""
    from matplotlib.figure import Figure

    method = found[0].method
    tasks = list(dict.fromkeys(one.task for one in found))
    panels = {task: [o for o in found if o.task == task and o.method == method] for task in tasks}
    tallest = min(MOST, max(map(len, panels.values())))
    with use_style():
        figure = Figure(figsize=(3.2 * len(tasks), 1.2 + 0.25 * tallest), layout="constrained")
        boxes = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, (task, own) in zip(boxes, panels.items(), strict=True):
            shown = sorted(own, key=lambda one: -one.drop)[:MOST][::-1]
            for place, one in enumerate(shown):
                axes.barh(place, one.drop, color="tab:blue", alpha=0.7)
                axes.plot([one.low, one.high], [place, place], color="black", linewidth=1)
            axes.axvline(0, color="grey", linewidth=0.8)
            axes.set_yticks(range(len(shown)), [one.column for one in shown])
            axes.set(title=task, xlabel=f"fall of the score ({method})")
    return figure
