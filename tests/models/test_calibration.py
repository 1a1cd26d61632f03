"""A model whose outputs are calibrated wherever nothing trains."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from src.batch import Batch, InputShape
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.tasks import BinaryClassification, Regression, Task
from src.tasks.calibration.calibrators import Platt
from src.tasks.calibration.record import mark_checkpoint

YES = BinaryClassification(classes=("no", "yes"))
TASKS: dict[str, Task] = {
    "a": YES,
    "b": YES,
    "by_hand": replace(YES, threshold=0.4),
    "y": Regression(mean=(0.0,), std=(1.0,)),
}
PLATT = Platt((2.0,), (-1.0,))
INPUTS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


def make_model() -> MultiTaskModel:
    model = MultiTaskModel(dict(TASKS), InputShape((5,)), encoder=partial(MLP, width=4, depth=0))
    model.configure_model()
    return model.eval()


def test_outputs_of_calibrated_tasks_are_mapped_in_evaluation_alone() -> None:
    model = make_model()
    before = model(INPUTS)
    model.calibrate({"b": PLATT, "by_hand": PLATT})
    after = model(INPUTS)
    for name in TASKS:
        mapped = name in ("b", "by_hand")
        expected = PLATT.apply(before[name]) if mapped else before[name]
        assert torch.equal(after[name], expected)

    # a, b and by_hand are one group of heads, which runs of a batch keep
    batch = Batch(INPUTS, {}, torch.arange(7))
    grouped = model.heads.split(model.run(batch))
    assert all(torch.equal(grouped[name], after[name]) for name in TASKS)

    model.train()
    trained = model.heads.split(model.run(batch))
    assert all(torch.equal(trained[name], before[name]) for name in TASKS)
    model.eval().calibrate({})
    assert all(torch.equal(model(INPUTS)[name], before[name]) for name in TASKS)


def test_chosen_thresholds_move_along_and_the_ones_set_by_hand_stay() -> None:
    model = make_model()
    model.calibrate({"a": PLATT, "by_hand": PLATT})
    described = {name: task.describe() for name, task in TASKS.items()}
    described["a"]["threshold"] = 0.3
    described["b"]["threshold"] = 0.3
    checkpoint = {"tasks": described}
    for _ in range(2):
        # loaded twice, it is moved once
        model.on_load_checkpoint(checkpoint)
    chosen = {name: getattr(model.chosen_tasks[name], "threshold", None) for name in TASKS}
    moved = torch.sigmoid(2 * torch.logit(torch.tensor(0.3, dtype=torch.float64)) - 1)
    assert chosen["a"] == pytest.approx(float(moved), abs=1e-12)
    assert (chosen["b"], chosen["by_hand"]) == (0.3, 0.4)

    model.calibrate({})
    restored = model.chosen_tasks["a"]
    assert isinstance(restored, BinaryClassification)
    assert restored.threshold == 0.3


def test_gradients_pass_through_a_calibration() -> None:
    model = make_model()
    model.calibrate({"a": PLATT})
    inputs = INPUTS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(inputs)["a"].sum(), inputs)
    model.calibrate({})
    (plain,) = torch.autograd.grad(model(inputs)["a"].sum(), inputs)
    torch.testing.assert_close(gradient, 2 * plain)


def test_a_checkpoint_is_known_by_its_step_metrics_and_thresholds() -> None:
    described = {"a": YES.describe()}
    checkpoint = {
        "epoch": 1,
        "global_step": 20,
        "metrics": {"val/a/loss": 0.25},
        "tasks": described,
        "state_dict": {"w": torch.zeros(2)},
    }
    own = mark_checkpoint(checkpoint)
    assert (own["epoch"], own["step"]) == (1, 20)
    assert mark_checkpoint({**checkpoint, "state_dict": {}}) == own
    others = (
        {"global_step": 21},
        {"metrics": {"val/a/loss": 0.25000001}},
        {"tasks": {"a": replace(YES, threshold=0.1).describe()}},
    )
    for changed in others:
        assert mark_checkpoint({**checkpoint, **changed})["fingerprint"] != own["fingerprint"]
