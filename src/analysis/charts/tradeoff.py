"""Score against gap: a mark for each method with its spread over seeds, a dot for each run."""

from collections.abc import Sequence

import numpy as np

from src.analysis.charts.chart import FAINT, Chart, make_figure, use_style
from src.analysis.charts.labels import clean_name, join_names
from src.analysis.charts.pareto import draw_means, find_front
from src.analysis.fairness.tradeoff import TradeoffMethod, TradeoffRun

NAME = "tradeoff"


def draw_tradeoff(
    runs: Sequence[TradeoffRun],
    methods: Sequence[TradeoffMethod],
    names: tuple[str, str],
    is_better: int,
    title: str,
) -> Chart:
    """Draws the score over the gap.

    Args:
        runs: The runs.
        methods: The means of the methods.
        names: Labels of the gap and of the score.
        is_better: 1 where a higher score is better, -1 where a lower one is.
        title: The title.
    """
    from pandas import DataFrame

    lines = []
    for one in methods:
        x_half = one.gap_spread or 0.0
        y_half = one.score_spread or 0.0
        lines.append(
            {
                "row": one.label,
                "x": one.gap,
                "x_low": one.gap - x_half,
                "x_high": one.gap + x_half,
                "y": one.score,
                "y_low": one.score - y_half,
                "y_high": one.score + y_half,
            }
        )
    signs = (-1, is_better)
    means = DataFrame(lines)
    with use_style():
        figure = make_figure(3.8)
        axes = figure.subplots()
        for run in runs:
            axes.plot(run.gap, run.score, marker=".", color=FAINT, markersize=3, zorder=1)
        draw_means(axes, means, signs)
        arrow = "→" if is_better > 0 else "←"
        axes.set(xlabel=f"{clean_name(names[0], 60)} ←", ylabel=f"{clean_name(names[1])} {arrow}")
        axes.set_title(clean_name(title, 80))
    points = means[["x", "y"]].to_numpy(float)
    front = [clean_name(str(label)) for label in means["row"][find_front(points, signs)]]
    caption = (
        "Marks are means over runs, lines one standard deviation on each side, dots single runs. "
        "Arrows point to the better side; grey steps bound what no method improves on in both at "
        "once."
    )
    best = int(np.argmin(points[:, 0]))
    finding = (
        f"No method is better in both than {join_names(front, 12)}. The smallest gap is "
        f"{points[best, 0]:.4g} ({clean_name(methods[best].label)}, with {points[best, 1]:.4g})."
    )
    return Chart(NAME, title, finding, caption, figure)
