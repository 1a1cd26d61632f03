"""Scores by the number of examples: a line per method, with intervals over draws."""

from typing import TYPE_CHECKING

import numpy as np

from src.analysis.charts.chart import Chart, make_figure, use_style
from src.analysis.charts.labels import Look, clean_name, label_right
from src.analysis.few_shot import tell_best

if TYPE_CHECKING:
    from src.analysis.few_shot import FewShots

NAME = "few_shot"
GAP = 0.05  # between methods, on a scale on which a doubling of k is 1


def draw_few_shots(found: "FewShots") -> Chart:
    """Draws the mean score of each method over k, with its 95 % interval."""
    title = f"{clean_name(found.task)} from few examples"
    known = found.summary.dropna(subset=["mean"])
    if known.empty:
        return Chart(NAME, title, "No method has a score.")
    texts = []
    ends = []
    looks = []
    with use_style():
        figure = make_figure(3.4)
        axes = figure.add_subplot()
        for place, method in enumerate(found.methods):
            own = known[known["method"] == method].sort_values("shots")
            if own.empty:
                continue
            look = Look(place)
            shots, mean, low, high = own[["shots", "mean", "low", "high"]].to_numpy(dtype=float).T
            # side by side, so that no interval hides another
            x = np.log2(shots) + GAP * (place - (len(found.methods) - 1) / 2)
            axes.plot(x, mean, color=look.color, linestyle=look.dashes, marker=look.marker)
            axes.vlines(x, low, high, color=look.color, linewidth=1.0)
            texts.append(method)
            ends.append((x[-1], mean[-1]))
            looks.append(look)
        # k on a scale of ratios, on which labels at the right are placed as on any other
        axes.set_xticks(np.log2(found.shots), [str(k) for k in found.shots])
        axes.margins(x=0.02)
        axes.set_xlabel("examples")
        rows = "test rows" if found.stage == "test" else "validation rows"
        axes.set_ylabel(f"{found.score}, {rows}")
        axes.set_title(title)
        axes.grid(axis="y")
        label_right(axes, texts, np.array(ends), looks)
    caption = (
        "Lines are means over draws of the examples, upright lines their 95 % intervals, which "
        "describe the draw of the examples and no other test rows. All methods learn from the "
        "same draws. Higher is better."
    )
    return Chart(NAME, title, ". ".join(tell_best(found)) + ".", caption, figure)
