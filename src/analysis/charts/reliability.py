"""Reliability diagrams: the share that is right against the confidence, a panel for each task."""

from collections.abc import Mapping, Sequence

from src.analysis.charts.chart import FAINT, GRID, Chart, make_figure, use_style
from src.analysis.charts.labels import COLORS, clean_name
from src.tasks.calibration.measures import Reliability, average_labels

NAME = "calibration"
TITLE = "Reliability"
MOST_PANELS = 12
LARGEST = 80  # square points of a marker that stands for all rows
MOST_LABELS = 6  # labels of a task in its panel


def draw_reliability(curves: Mapping[str, Mapping[str, Sequence[Reliability]]]) -> Chart:
    """Draws the bins of each task; points on the diagonal come true as often as they say.

    Args:
        curves: {task: {name of a curve: what was measured, one for each label}}.
    """
    shown = [(task, own) for task, own in curves.items() if any(own.values())][:MOST_PANELS]
    if not shown:
        return Chart(NAME, TITLE, "No task predicts probabilities or quantiles.")
    across = min(len(shown), 3)
    down = -(-len(shown) // across)
    with use_style():
        figure = make_figure(2.6 * down, 2.4 * across)
        grid = figure.subplots(down, across, squeeze=False).flatten()
        for axes, (task, own) in zip(grid, shown, strict=False):
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, dashes=(4, 3))
            for place, (name, found) in enumerate(own.items()):
                for number, one in enumerate(found[:MOST_LABELS]):
                    x = [part.confidence for part in one.bins]
                    y = [part.frequency for part in one.bins]
                    total = sum(part.weight for part in one.bins)
                    # a bin of a few rows is near nothing, and looks so
                    sizes = [3 + LARGEST * part.weight / total for part in one.bins]
                    color = COLORS[place % len(COLORS)]
                    marker = "os^"[place % 3]
                    label = name if number == 0 else None
                    axes.plot(x, y, color=color, linewidth=0.6, alpha=0.4)
                    axes.scatter(x, y, s=sizes, marker=marker, color=color, label=label)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=clean_name(task, 24))
            axes.grid(color=GRID)
            axes.legend(fontsize=7, frameon=False, loc="upper left")
        for axes in grid[len(shown) :]:
            axes.set_visible(False)
        figure.supxlabel("predicted probability or level", fontsize=9)
        figure.supylabel("share that comes true", fontsize=9)
    caption = (
        "Each point is a bin of equal width, as large as its share of rows; of quantiles it is a "
        "level. Points above the diagonal promise too little, below it too much."
    )
    return Chart(NAME, TITLE, tell_errors(curves), caption, figure)


def tell_errors(curves: Mapping[str, Mapping[str, Sequence[Reliability]]]) -> str:
    """Returns the first measure of each task and curve in words."""
    parts = []
    for task, own in curves.items():
        for name, found in own.items():
            if found:
                measure, value = next(iter(average_labels(list(found)).items()))
                parts.append(f"{task}, {name}: {measure} {value:.4f}")
    return "; ".join(parts)
