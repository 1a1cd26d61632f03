"""Calibrators against what they say of themselves, in float64 and exported."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from src.errors import UserError
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
    Task,
)
from src.tasks.calibration.calibrators import (
    Calibrator,
    OrdinalTemperature,
    Platt,
    QuantileMap,
    Temperature,
    restore_calibrator,
)

BINARY = BinaryClassification(classes=("no", "yes"), threshold=0.3)
CLASSES = Classification(classes=("a", "b", "c"))
LABELS = MultilabelClassification(labels=("x", "y"), thresholds=(0.2, 0.7))
CORN = Ordinal(classes=(1, 2, 3, 4))
CUMULATIVE = Ordinal(classes=(1, 2, 3, 4), method="cumulative")
QUANTILES = Quantiles(levels=(0.1, 0.5, 0.9), mean=0.0, std=1.0)

CASES: list[tuple[Task, Calibrator]] = [
    (BINARY, Platt((0.5,), (1.0,))),
    (LABELS, Platt((0.5, 2.0), (1.0, -1.0))),
    (CLASSES, Temperature(2.0)),
    (CORN, OrdinalTemperature(2.0, "corn")),
    (CUMULATIVE, OrdinalTemperature(2.0, "cumulative")),
    (QUANTILES, QuantileMap((0.1, 0.5, 0.9), (0.05, 0.45, 0.97))),
]
IDS = [type(task).__name__ + getattr(task, "method", "") for task, _ in CASES]


def draw(task: Task, rows: int = 200, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(rows, task.out_features, generator=generator, dtype=dtype)


@pytest.mark.parametrize(("task", "calibrator"), CASES, ids=IDS)
def test_what_is_described_is_restored(task: Task, calibrator: Calibrator) -> None:
    described = calibrator.describe()
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in described.items()}
    assert restore_calibrator(plain, task) == calibrator


@pytest.mark.parametrize(("task", "calibrator"), CASES, ids=IDS)
def test_export_traces_it(task: Task, calibrator: Calibrator) -> None:
    class Module(nn.Module):
        def forward(self, outputs: Tensor) -> Tensor:
            return calibrator.apply(outputs)

    outputs = draw(task)
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(Module(), (outputs,), dynamic_shapes=({0: rows},))
    more = draw(task, 300)
    torch.testing.assert_close(program.module()(more), calibrator.apply(more))


@pytest.mark.parametrize(("task", "calibrator"), CASES, ids=IDS)
def test_type_and_padding_stay(task: Task, calibrator: Calibrator) -> None:
    outputs = draw(task)
    outputs[3] = float("nan")
    found = calibrator.apply(outputs)
    assert found.dtype == torch.float32
    assert found[3].isnan().all()
    assert found[:3].isfinite().all()
    assert found[4:].isfinite().all()


def test_temperature_against_its_formula() -> None:
    outputs = draw(CLASSES, dtype=torch.float64)
    expected = outputs.softmax(-1).pow(1 / 2)
    expected = expected / expected.sum(-1, keepdim=True)
    found = Temperature(2.0).apply(outputs).softmax(-1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("task", [CORN, CUMULATIVE], ids=["corn", "cumulative"])
def test_ordinal_temperature_divides_cumulative_logits(task: Ordinal) -> None:
    outputs = draw(task, dtype=torch.float64)
    found = OrdinalTemperature(2.0, task.method).apply(outputs)

    def above(values: Tensor) -> Tensor:
        logs = task.log_probabilities(values)
        return logs.exp().flip(-1).cumsum(-1).flip(-1)[..., 1:].logit()

    inner = above(outputs).abs() < 20
    torch.testing.assert_close(above(found)[inner], above(outputs)[inner] / 2, rtol=1e-6, atol=1e-6)
    assert torch.equal(task.predict(found), task.predict(outputs))


def test_quantiles_are_read_between_and_beyond_the_predicted_ones() -> None:
    outputs = draw(QUANTILES, dtype=torch.float64)
    q1, q5, q9 = QUANTILES.predict(outputs).unbind(-1)
    found = QuantileMap((0.1, 0.5, 0.9), (0.05, 0.3, 0.97)).apply(outputs)
    low = q1 + (0.05 - 0.1) / 0.4 * (q5 - q1)
    middle = q1 + 0.2 / 0.4 * (q5 - q1)
    high = q5 + 0.47 / 0.4 * (q9 - q5)
    expected = torch.stack([low, middle, high], -1)
    torch.testing.assert_close(QUANTILES.predict(found), expected, rtol=1e-9, atol=1e-9)


@given(
    st.floats(0.05, 20),
    st.floats(-5, 5),
    st.floats(0.001, 0.999),
    st.lists(st.floats(-8, 8), min_size=1, max_size=50),
)
def test_moved_thresholds_decide_as_before(a: float, b: float, t: float, x: list[float]) -> None:
    task = replace(BINARY, threshold=t)
    outputs = torch.tensor(x, dtype=torch.float64)[:, None]
    calibrator = Platt((a,), (b,))
    moved = calibrator.move_thresholds(task)
    assert isinstance(moved, BinaryClassification)
    # a row at the threshold to the last digit may fall on either side
    apart = (outputs.sigmoid() - t).abs().squeeze(-1) > 1e-9
    decided = moved.predict(calibrator.apply(outputs))
    assert torch.equal(decided[apart], task.predict(outputs)[apart])


def test_thresholds_of_each_label_are_moved() -> None:
    outputs = draw(LABELS)
    calibrator = Platt((0.5, 2.0), (1.0, -1.0))
    moved = calibrator.move_thresholds(LABELS)
    assert isinstance(moved, MultilabelClassification)
    assert torch.equal(moved.predict(calibrator.apply(outputs)), LABELS.predict(outputs))
    assert moved.thresholds == pytest.approx((0.57611688, 0.66698849), abs=1e-8)


@pytest.mark.parametrize(
    ("described", "task", "message"),
    [
        ({"kind": "os.system"}, BINARY, "kind is 'os.system', where one of Temperature"),
        ({"kind": "Temperature", "temperature": 0.0}, CLASSES, "above 0"),
        ({"kind": "Temperature", "temperature": "2"}, CLASSES, "a finite number"),
        (
            {"kind": "Temperature", "temperature": 1.0, "more": 1},
            CLASSES,
            "more belongs to nothing",
        ),
        ({"kind": "Platt", "slopes": [1.0], "intercepts": [0.0]}, LABELS, "none of a Multilabel"),
        ({"kind": "Temperature", "temperature": 1.0}, CORN, "none of a Ordinal's outputs"),
        (
            {"kind": "QuantileMap", "levels": [0.1, 0.5, 0.9], "read_at": [0.5, 0.4, 0.9]},
            QUANTILES,
            "none of a Quantiles",
        ),
        ({"kind": "Temperature", "temperature": 1.0}, Regression(), "none of a Regression"),
    ],
)
def test_a_calibrator_of_a_stranger(described: dict[str, object], task: Task, message: str) -> None:
    with pytest.raises(UserError, match=message):
        restore_calibrator(described, task)
