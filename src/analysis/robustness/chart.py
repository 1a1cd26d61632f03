"""The picture of a ladder: a panel for each task, a line for each corruption."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from src.analysis.charts.chart import use_style
from src.analysis.charts.labels import COLORS
from src.analysis.robustness.ladder import Rung

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ATTACK = "attack"


def draw_ladder(rungs: Sequence[Rung], words: dict[str, str]) -> "Figure":
    """Draws the scores of each task against severity, with their intervals.

    Args:
        rungs: The rungs; those of attacks have a panel of their own below.
        words: {task: what its score is}.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(rung.task for rung in rungs))
    attacked = [rung for rung in rungs if rung.corruption == ATTACK]
    ladder = [rung for rung in rungs if rung.corruption != ATTACK]
    panels = [own for own in (ladder, attacked) if own]
    names = list(dict.fromkeys(rung.corruption for rung in ladder))
    with use_style():
        size = (0.6 + 3.0 * len(tasks), 0.4 + 2.6 * len(panels))
        figure = Figure(figsize=size, layout="constrained")
        boxes = figure.subplots(len(panels), len(tasks), squeeze=False)
        for row, own in zip(boxes, panels, strict=True):
            is_attack = own is attacked
            for axes, task in zip(row, tasks, strict=True):
                for number, name in enumerate([ATTACK] if is_attack else names):
                    line = [r for r in own if r.task == task and r.corruption == name]
                    x = [r.amount if is_attack else r.severity for r in line]
                    color = COLORS[number % len(COLORS)]
                    axes.plot(x, [r.score for r in line], "o-", color=color, label=name)
                    low, high = [r.low for r in line], [r.high for r in line]
                    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
                bound = "bound of the attack, std"
                axes.set(title=task, ylabel=words[task])
                axes.set_xlabel(bound if is_attack else "severity")
        boxes[0][0].legend(frameon=False, fontsize=8)
    return figure
