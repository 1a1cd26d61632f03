"""Fitted calibrators against references in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from src.errors import UserError
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
    Segmentation,
    SequenceLabelling,
    Task,
)
from src.tasks.calibration.calibrators import (
    OrdinalTemperature,
    Platt,
    QuantileMap,
    Temperature,
)
from src.tasks.calibration.fitting import find_levels, fit_calibrator
from src.tasks.calibration.likelihood import compute_nll
from src.tasks.calibration.probabilities import has_probabilities

BINARY = BinaryClassification(classes=("no", "yes"))
CLASSES = Classification(classes=("a", "b", "c"))
LABELS = MultilabelClassification(labels=("x", "y", "z"))
QUANTILES = Quantiles(levels=(0.1, 0.5, 0.9), mean=10.0, std=2.0)


def draw_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_labels(p: Tensor, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(p.flatten(0, -2), 1, generator=generator).view(p.shape[:-1])


def test_platt_against_scipy() -> None:
    """The same optimum of the softened cross-entropy, by another algorithm."""
    optimize = pytest.importorskip("scipy.optimize")
    x = 3 * draw_logits(400, 1) + 1
    y = (
        torch.rand(400, generator=torch.Generator().manual_seed(2)) < (x[:, 0] / 2).sigmoid()
    ).float()
    y[:7] = float("nan")
    found = fit_calibrator(BINARY, x, y)
    assert isinstance(found, Platt)

    known = ~y.isnan()
    z, labels = x[known, 0].numpy(), y[known].numpy()
    p, q = labels.sum(), (1 - labels).sum()
    t = np.where(labels > 0, (p + 1) / (p + 2), 1 / (q + 2))

    def loss(ab: np.ndarray) -> float:
        logits = ab[0] * z + ab[1]
        return float((np.logaddexp(0, logits) - t * logits).sum())

    best = optimize.minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-9})
    assert found.slopes[0] == pytest.approx(best.x[0], abs=1e-5)
    assert found.intercepts[0] == pytest.approx(best.x[1], abs=1e-5)


def test_platt_of_weighted_rows_is_that_of_repeated_ones() -> None:
    x = draw_logits(60, 1)
    y = (torch.arange(60) % 3 == 0).double()
    y = torch.where(x[:, 0] > 1, 1.0, y)
    weights = 1.0 + torch.arange(60) % 3
    repeated = torch.arange(60).repeat_interleave(weights.long())
    ours = fit_calibrator(BINARY, x, y, weights)
    theirs = fit_calibrator(BINARY, x[repeated], y[repeated])
    assert isinstance(ours, Platt) and isinstance(theirs, Platt)
    assert ours.slopes == pytest.approx(theirs.slopes, abs=1e-9)
    assert ours.intercepts == pytest.approx(theirs.intercepts, abs=1e-9)


def test_classes_that_a_threshold_parts_have_a_finite_slope() -> None:
    x = torch.linspace(-3, 3, 40, dtype=torch.float64)[:, None]
    found = fit_calibrator(BINARY, x, (x[:, 0] > 0).float())
    assert isinstance(found, Platt)
    assert 0 < found.slopes[0] < 1e3


def test_temperature_against_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    logits = 4 * draw_logits(4000, 3)
    y = draw_labels((logits / 2.5).softmax(-1))
    found = fit_calibrator(CLASSES, logits, y)
    assert isinstance(found, Temperature)

    def loss(t: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / t, y))

    best = optimize.minimize_scalar(
        loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-9}
    )
    assert found.temperature == pytest.approx(best.x, rel=1e-6)
    assert found.temperature == pytest.approx(2.5, rel=0.15)


@pytest.mark.parametrize("method", ["corn", "cumulative"])
def test_ordinal_temperature_undoes_one(method: str) -> None:
    task = Ordinal(classes=(1, 2, 3, 4), method=method)  # type: ignore[arg-type]
    outputs = draw_logits(4000, 3)
    y = draw_labels(task.log_probabilities(outputs).exp())
    sharp = OrdinalTemperature(0.4, task.method).apply(outputs)
    found = fit_calibrator(task, sharp, y)
    assert isinstance(found, OrdinalTemperature)
    assert found.temperature == pytest.approx(2.5, rel=0.08)


@pytest.mark.parametrize("crf", [False, True])
def test_temperature_of_sequences_leaves_padding_out(crf: bool) -> None:
    task = SequenceLabelling(classes=("A", "B"), crf=crf)
    outputs = 4 * draw_logits(300, 6, task.out_features)
    y = draw_labels(torch.full((300, 6, 2), 0.5, dtype=torch.float64))
    right = task.predict(outputs)
    even = torch.rand(300, 6, generator=torch.Generator().manual_seed(5)) < 0.8
    y = torch.where(even, right, y)
    y[:, 4:] = -100
    whole = fit_calibrator(task, outputs, y)
    outputs[:, 4:] = float("nan")
    hidden = fit_calibrator(task, outputs, y)
    assert isinstance(whole, Temperature) and isinstance(hidden, Temperature)
    assert hidden.temperature > 1
    if not crf:
        assert hidden.temperature == pytest.approx(whole.temperature, rel=1e-6)


def test_temperature_of_pixels_is_that_of_as_many_rows() -> None:
    outputs = 4 * draw_logits(4, 8, 8, 3)
    y = draw_labels((outputs / 2).softmax(-1))
    y[0, :4] = -100
    pixels = fit_calibrator(Segmentation(classes=(0, 1, 2)), outputs, y)
    rows = fit_calibrator(CLASSES, outputs.view(-1, 3), y.flatten())
    assert isinstance(pixels, Temperature) and isinstance(rows, Temperature)
    assert pixels.temperature == pytest.approx(rows.temperature, rel=1e-6)


def test_likelihood_of_a_chain_is_that_of_its_calibrated_paths() -> None:
    """p of a path to the power 1 / T, over the sum of all of them."""
    task = SequenceLabelling(classes=("A", "B"), crf=True)
    outputs = draw_logits(1, 3, 4)
    y = torch.tensor([[0, 1, 1]])
    paths = torch.cartesian_prod(*[torch.arange(2)] * 3)
    logs = torch.stack([-compute_nll(task, outputs, path[None]).sum() for path in paths])
    own = int((paths == y).all(1).nonzero())
    expected = (logs / 2).log_softmax(0)[own]
    found = -compute_nll(task, Temperature(2.0).apply(outputs), y).sum()
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_quantiles_come_true_on_the_rows_that_map_them() -> None:
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(999, generator=generator, dtype=torch.float64)
    y = centre + 0.3 + torch.randn(999, generator=generator, dtype=torch.float64)
    # the network promises half the spread, and no shift
    width = torch.full((999,), 0.6, dtype=torch.float64)
    outputs = torch.stack([width, centre, width], -1)
    found = fit_calibrator(QUANTILES, outputs, y)
    assert isinstance(found, QuantileMap)
    q = QUANTILES.predict(found.apply(outputs))
    for k, level in enumerate(QUANTILES.levels):
        assert float((y <= q[:, k]).double().mean()) == pytest.approx(level, abs=0.0011)


def test_levels_are_where_the_quantile_function_has_labels() -> None:
    q = torch.tensor([[0.0, 1.0, 3.0]]).double().expand(5, 3)
    labels = torch.tensor([0.0, 0.5, 2.0, 5.0, -1.0]).double()
    found = find_levels(q, labels, (0.1, 0.5, 0.9))
    assert found.tolist() == pytest.approx([0.1, 0.3, 0.7, 1.3, -0.3])


def test_a_label_of_one_class_keeps_its_logits() -> None:
    x = draw_logits(100, 3)
    y = (x + draw_logits(100, 3, seed=3) > 0).float()
    y[:, 1] = 1
    found = fit_calibrator(LABELS, x, y)
    assert isinstance(found, Platt)
    assert (found.slopes[1], found.intercepts[1]) == (1.0, 0.0)
    alone = fit_calibrator(replace(BINARY), x[:, 2:], y[:, 2])
    assert isinstance(alone, Platt)
    assert found.slopes[2] == pytest.approx(alone.slopes[0])


def unfit() -> list[tuple[str, Task, Tensor, Tensor, str]]:
    x = draw_logits(50, 1)
    logits = 5 * draw_logits(50, 3)
    none = torch.full((50,), float("nan"))
    return [
        ("no label", BINARY, x, none, "no validation row has a label"),
        ("one class", BINARY, x, torch.ones(50), "of one class"),
        ("backwards", BINARY, x, (x[:, 0] < 0).float(), "no better than chance"),
        ("all right", CLASSES, logits, logits.argmax(-1), "bounds no temperature"),
        ("all wrong", CLASSES, logits, logits.argmin(-1), "do not follow the predictions"),
        ("few", QUANTILES, logits[:5], torch.zeros(5), "too few for the level 0.1"),
        ("regression", Regression(), x, x[:, 0], "predicts no distribution"),
    ]


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "message"),
    [case[1:] for case in unfit()],
    ids=[case[0] for case in unfit()],
)
def test_rows_that_tell_no_calibrator(
    task: Task, outputs: Tensor, targets: Tensor, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit_calibrator(task, outputs, targets)


def test_only_tasks_with_classes_have_probabilities() -> None:
    assert has_probabilities(LABELS)
    assert not has_probabilities(QUANTILES)
