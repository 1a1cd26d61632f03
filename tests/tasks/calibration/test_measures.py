"""Measures of calibration against torchmetrics, scikit-learn and plain sums."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    SequenceLabelling,
)
from src.tasks.calibration.measures import (
    BINS,
    BRIER,
    ECE,
    NLL,
    average_labels,
    measure_classes,
    measure_quantiles,
)

GENERATOR = torch.Generator().manual_seed(0)
X1 = 2 * torch.randn(500, 1, generator=GENERATOR, dtype=torch.float64)
X3 = 2 * torch.randn(500, 3, generator=GENERATOR, dtype=torch.float64)
Y = (torch.rand(500, generator=GENERATOR) < X1[:, 0].sigmoid()).double()
Y3 = torch.multinomial((X3 / 2).softmax(-1), 1, generator=GENERATOR).squeeze(-1)
BINARY = BinaryClassification(classes=("no", "yes"))
CLASSES = Classification(classes=("a", "b", "c"))


def test_binary_against_torchmetrics() -> None:
    (found,) = measure_classes(BINARY, X1, Y)
    p = X1[:, 0].sigmoid()
    ece = binary_calibration_error(p, Y.long(), n_bins=BINS)
    assert found.values[ECE] == pytest.approx(float(ece), abs=1e-6)
    assert found.values[BRIER] == pytest.approx(float((p - Y).square().mean()), abs=1e-12)
    nll = torch.nn.functional.binary_cross_entropy(p, Y)
    assert found.values[NLL] == pytest.approx(float(nll), abs=1e-12)
    assert sum(part.rows for part in found.bins) == found.rows == 500


def test_classes_against_torchmetrics_and_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    (found,) = measure_classes(CLASSES, X3, Y3)
    p = X3.softmax(-1)
    ece = multiclass_calibration_error(p, Y3, 3, n_bins=BINS)
    assert found.values[ECE] == pytest.approx(float(ece), abs=1e-6)
    assert found.values[NLL] == pytest.approx(metrics.log_loss(Y3.numpy(), p.numpy()), abs=1e-12)
    one_hot = torch.nn.functional.one_hot(Y3, 3)
    brier = (p - one_hot).square().sum(-1).mean()
    assert found.values[BRIER] == pytest.approx(float(brier), abs=1e-12)


def test_missing_labels_and_rows_without_weight_do_not_count() -> None:
    targets = Y3.clone()
    targets[:100] = -100
    weights = torch.ones(500)
    weights[100:200] = 0
    (found,) = measure_classes(CLASSES, X3, targets, weights)
    (rest,) = measure_classes(CLASSES, X3[200:], Y3[200:])
    assert found.rows == 300
    assert found.values == pytest.approx(rest.values, abs=1e-12)


def test_weights_count_as_repetitions() -> None:
    weights = 1 + torch.arange(500) % 3
    repeated = torch.arange(500).repeat_interleave(weights)
    (found,) = measure_classes(CLASSES, X3, Y3, weights)
    (theirs,) = measure_classes(CLASSES, X3[repeated], Y3[repeated])
    assert found.values == pytest.approx(theirs.values, abs=1e-12)


def test_each_label_is_measured_and_the_task_has_the_mean() -> None:
    task = MultilabelClassification(labels=("x", "y"))
    both = torch.cat([X1, -X1], -1)
    targets = torch.stack([Y, torch.full_like(Y, float("nan"))], -1)
    found = measure_classes(task, both, targets)
    (alone,) = measure_classes(BINARY, X1, Y)
    assert [one.label for one in found] == ["x"]
    assert found[0].values == pytest.approx(alone.values, abs=1e-12)
    targets = torch.stack([Y, 1 - Y], -1)
    assert average_labels(measure_classes(task, both, targets)) == pytest.approx(alone.values)


def test_tokens_and_ordered_classes() -> None:
    tokens = SequenceLabelling(classes=("a", "b", "c"))
    (found,) = measure_classes(tokens, X3.view(50, 10, 3), Y3.view(50, 10))
    (flat,) = measure_classes(CLASSES, X3, Y3)
    assert found.values == pytest.approx(flat.values, abs=1e-12)

    ordinal = Ordinal(classes=(1, 2, 3, 4))
    (ranks,) = measure_classes(ordinal, X3, Y3)
    logs = ordinal.log_probabilities(X3)
    nll = -logs[torch.arange(500), Y3].mean()
    assert ranks.values[NLL] == pytest.approx(float(nll), abs=1e-12)


def test_perfect_and_certain_probabilities() -> None:
    right = torch.where(Y > 0, 100.0, -100.0)[:, None]
    (found,) = measure_classes(BINARY, right, Y)
    assert found.values == pytest.approx({ECE: 0.0, BRIER: 0.0, NLL: 0.0}, abs=1e-12)
    (wrong,) = measure_classes(BINARY, -right, Y)
    assert wrong.values == pytest.approx({ECE: 1.0, BRIER: 1.0, NLL: 100.0}, abs=1e-9)


def test_quantiles_against_plain_shares() -> None:
    task = Quantiles(levels=(0.1, 0.25, 0.5, 0.9), mean=3.0, std=2.0)
    outputs = torch.randn(300, 4, generator=GENERATOR).double()
    y = torch.randn(300, generator=GENERATOR).double()
    (found,) = measure_quantiles(task, outputs, y)
    q = task.predict(outputs).numpy()
    shares = [float(np.mean(y.numpy() <= q[:, k])) for k in range(4)]
    assert [part.frequency for part in found.bins] == pytest.approx(shares)
    inside = (q[:, 0] <= y.numpy()) & (y.numpy() <= q[:, 3])
    assert found.values["coverage of the central 0.8"] == pytest.approx(inside.mean())
    assert "coverage of the central 0.5" not in found.values
    error = np.mean([abs(s - t) for s, t in zip(shares, task.levels, strict=True)])
    assert found.values["mean error of 4 levels"] == pytest.approx(error)
