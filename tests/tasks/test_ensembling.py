"""The mean of several networks' predictions, in the space of predictions, and their spread."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
)

BINARY = BinaryClassification(classes=("no", "yes"))
CLASSES = Classification(classes=("a", "b", "c"))
LABELS = MultilabelClassification(labels=("x", "y"))
NUMBER = Regression(mean=(3.0,), std=(2.0,))
VECTOR = Regression(mean=(0.0, 1.0), std=(1.0, 3.0), names=("u", "v"))
TASKS = {"binary": BINARY, "classes": CLASSES, "labels": LABELS, "number": NUMBER, "vector": VECTOR}


def expect(task, outputs):
    """Probabilities or numbers that outputs stand for, in float64."""
    if task is CLASSES:
        return outputs.double().softmax(-1)
    if task in (BINARY, LABELS):
        return outputs.double().sigmoid()
    return task.in_units(outputs.double())


def draw(task, networks, seed=0, scale=3.0, rows=7):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(networks, rows, task.out_features, generator=generator)


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(sorted(TASKS)),
    networks=st.integers(1, 6),
    seed=st.integers(0, 99),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
)
def test_predictions_are_averaged_and_not_logits(name, networks, seed, scale):
    task = TASKS[name]
    outputs = draw(task, networks, seed, scale)
    mean = np.mean([expect(task, one).numpy() for one in outputs], axis=0)
    averaged = task.average(outputs)
    assert averaged.dtype == torch.float32
    np.testing.assert_allclose(expect(task, averaged), mean, rtol=1e-5, atol=1e-6)
    # the order of networks does not count
    np.testing.assert_allclose(task.average(outputs.flip(0)), averaged, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("networks", [1, 2, 3, 7])
def test_networks_that_agree_keep_their_outputs_to_the_bit(name, networks):
    outputs = draw(TASKS[name], 1).expand(networks, -1, -1)
    assert torch.equal(TASKS[name].average(outputs), outputs[0])


def test_the_mean_is_exact_where_probabilities_are_near_0_and_1():
    logits = torch.tensor([[[40.0]], [[60.0]]])
    # 1 - p is about exp(-40) / 2
    assert BINARY.average(logits).item() == pytest.approx(40 + np.log(2), rel=1e-6)
    assert BINARY.average(-logits).item() == pytest.approx(-40 - np.log(2), rel=1e-6)
    outputs = torch.tensor([[[0.0, -200.0, 0.0]], [[0.0, -300.0, 0.0]]])
    losses = CLASSES.losses(CLASSES.average(outputs), torch.tensor([1]))
    assert losses.item() == pytest.approx(200 + 2 * np.log(2), rel=1e-6)


def test_dimensions_before_the_outputs_may_be_any():
    outputs = torch.randn(3, 4, 5, 6, 3)
    flat = CLASSES.average(outputs.flatten(1, 3))
    torch.testing.assert_close(CLASSES.average(outputs).flatten(0, 2), flat)


def test_the_spread_is_that_of_what_is_predicted():
    for name, task in TASKS.items():
        outputs = draw(task, 4)
        mixed = task.average(outputs)
        deviation = np.std([expect(task, one).numpy() for one in outputs], axis=0)
        spread = task.measure_spread(outputs, mixed)
        match name:
            case "classes":
                chosen = mixed.argmax(-1)
                wanted = {"spread": deviation[np.arange(7), chosen]}
            case "labels":
                wanted = {"spread_x": deviation[:, 0], "spread_y": deviation[:, 1]}
            case "vector":
                wanted = {"spread_u": deviation[:, 0], "spread_v": deviation[:, 1]}
            case _:
                wanted = {"spread": deviation[:, 0]}
        assert spread.keys() == wanted.keys(), name
        for key, values in wanted.items():
            np.testing.assert_allclose(spread[key], values, rtol=1e-5, atol=1e-9)


def test_one_network_has_no_spread():
    outputs = draw(NUMBER, 1)
    assert NUMBER.measure_spread(outputs, outputs[0]) == {"spread": [0.0] * 7}


@dataclass(frozen=True, kw_only=True)
class Ordinal(Classification):
    """A kind whose outputs are no probabilities of classes: two thresholds for three classes."""

    @property
    def out_features(self):
        return len(self.classes) - 1

    def predict(self, outputs):
        return (outputs > 0).sum(-1)


def test_a_kind_without_probabilities_of_classes_averages_its_outputs():
    task = Ordinal(classes=("a", "b", "c"))
    outputs = draw(task, 3)
    torch.testing.assert_close(task.average(outputs), outputs.mean(0))
    spread = task.measure_spread(outputs, task.average(outputs))
    np.testing.assert_allclose(spread["spread_1"], outputs[..., 1].std(0, correction=0))
