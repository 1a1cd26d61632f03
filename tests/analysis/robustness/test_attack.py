"""Attacks stay within their bounds, and are the worst case of a linear model."""

import builtins

import pytest
import torch

from src.analysis.robustness.attack import attack_inputs, import_attacks
from src.errors import UserError
from src.tasks import BinaryClassification, Regression
from tests.analysis.robustness.samples import make_images, make_table

BINARY = BinaryClassification(classes=("no", "yes"))


def test_the_attack_on_a_linear_model_is_exact():
    """The worst change of x w is radius * std * |w| against the label."""
    part, inputs = make_table(50)
    weights = torch.tensor([2.0, 1.0, -0.3])

    def run(given):
        return {"y": (given["dense"] @ weights)[:, None]}

    targets = (torch.arange(50) % 2).float()
    changed = attack_inputs(run, "y", BINARY, [part], inputs, targets, 0.25)
    gap = changed["dense"] - inputs["dense"]
    sign = torch.where(targets > 0, -1.0, 1.0)
    std = part.learnt.std.float()
    known = inputs["dense"][:, 1] == 0
    assert torch.allclose(gap[known, 0], 0.25 * std[0] * sign[known], atol=1e-6)
    assert torch.allclose(gap[:, 2], -0.25 * std[2] * sign, atol=1e-5)
    # missing values, indicators and categories stay
    assert not gap[~known, 0].any()
    assert not gap[:, 1].any()
    assert torch.equal(changed["categorical"], inputs["categorical"])


def test_a_row_without_a_label_stays():
    part, inputs = make_table(4)
    targets = torch.tensor([1.0, torch.nan, 0.5, torch.nan])
    task = Regression(mean=(0.0,), std=(1.0,))

    def run(given):
        return {"y": given["dense"][:, 2:] * 3}

    changed = attack_inputs(run, "y", task, [part], inputs, targets, 0.1)
    moved = (changed["dense"] != inputs["dense"]).any(1)
    assert moved.tolist() == [True, False, True, False]


def test_sure_predictions_are_attacked_too():
    """The gradient of a loss of 1e-9 has a direction, though its size is almost 0."""
    part, inputs = make_table(4)
    targets = torch.ones(4)

    def run(given):
        return {"y": 20 + given["dense"][:, 2:]}

    changed = attack_inputs(run, "y", BINARY, [part], inputs, targets, 0.1)
    assert (changed["dense"][:, 2] < inputs["dense"][:, 2]).all()


def test_pixels_stay_within_those_of_training():
    part, images = make_images()

    def run(given):
        return {"y": given.sum((1, 2, 3))[:, None]}

    changed = attack_inputs(run, "y", BINARY, [part], images, torch.zeros(6), 0.5)
    wanted = torch.minimum(images + 0.5 * part.learnt.std, part.learnt.high).float()
    assert torch.allclose(changed, wanted, atol=1e-5)


def test_without_the_library_one_line_says_how_to_install_it(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("captum"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install captum"):
        import_attacks()
