"""Reliability diagrams hold the bins that were measured."""

import numpy as np
import torch

from src.analysis.charts.reliability import draw_reliability
from src.tasks import BinaryClassification
from src.tasks.calibration.measures import ECE, measure_classes


def test_points_are_bins_and_the_finding_tells_the_error() -> None:
    task = BinaryClassification(classes=("no", "yes"))
    outputs = torch.tensor([[-2.0], [-2.0], [2.0], [2.0]])
    found = measure_classes(task, outputs, torch.tensor([0.0, 1.0, 1.0, 1.0]))
    chart = draw_reliability({"income": {"before": found}, "hours": {"before": []}})
    assert chart.figure is not None
    (axes,) = chart.figure.axes
    # the diagonal, then the bins
    _, line = axes.lines
    p = torch.tensor(2.0).sigmoid().item()
    assert np.asarray(line.get_xdata()).tolist() == [
        found[0].bins[0].confidence,
        found[0].bins[1].confidence,
    ]
    assert abs(found[0].bins[1].confidence - p) < 1e-6
    assert np.asarray(line.get_ydata()).tolist() == [0.5, 1.0]
    assert chart.finding == f"income, before: {ECE} {found[0].values[ECE]:.4f}"


def test_nothing_is_drawn_where_no_task_predicts_probabilities() -> None:
    assert draw_reliability({"hours": {"before": []}}).figure is None
