"""Weights of rows in losses: a row of weight 2 is two rows, and one of weight 0 is none."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from src.balancing import PCGrad, StaticWeights, UncertaintyWeights
from src.batch import PADDING, Batch
from src.data import Rows
from src.data.concat import MultiSourceDataset
from src.models.affinities import invert_counts
from src.models.evaluation import Evaluation
from src.tasks import BinaryClassification, is_labelled
from tests.models.backward import test_levels
from tests.models.backward.test_levels import Halves, batch_of, model_of, reference
from tests.models.test_affinities import fitted

REPEATS = torch.arange(24) % 4


def repeated() -> Batch:
    """The rows of a batch, each as often as it weighs."""
    batch = batch_of()
    rows = torch.arange(24).repeat_interleave(REPEATS)
    targets = {name: target[rows] for name, target in batch.targets.items()}
    return Batch(batch.inputs[rows], targets, batch.ids[rows])


def weighed(scale=1.0) -> Batch:
    """The same rows once, with weights."""
    batch = batch_of()
    batch.weights = dict.fromkeys(batch.targets, REPEATS.double() * scale)
    return batch


def gradients(model, batch):
    model.zero_grad()
    model.training_step(batch, 0).backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize(
    "balancer", [StaticWeights, UncertaintyWeights, partial(PCGrad, level="parameters")]
)
def test_a_weight_is_as_good_as_that_many_rows(balancer, scale):
    model = model_of(balancer)
    wanted = gradients(model, repeated())
    losses, sums_2T = model.step.losses_T, model.step.sums_2T.clone()
    model.step.sums_2T.zero_()
    got = gradients(model, weighed(scale))
    # the sum of weights of a task may be far below 1
    torch.testing.assert_close(model.step.losses_T, losses, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(model.step.sums_2T, scale * sums_2T, rtol=1e-9, atol=1e-12)
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("level", ["features", "parameters"])
def test_gradients_of_tasks_are_those_of_weighted_losses(level, monkeypatch):
    def weighted_losses(model, batch, features):
        losses = []
        for name in model.names:
            task, target = model.tasks[name], batch.targets[name]
            elements = task.losses(model.heads[name](features[name]), target)
            w = batch.weights[name].view(-1, *[1] * (target.ndim - 1))
            total = (w * is_labelled(target)).sum()
            losses.append(model.weights[name] * (w * elements).sum() / total.clamp(min=1e-9))
        return losses

    monkeypatch.setattr(test_levels, "task_losses", weighted_losses)
    model = model_of(partial(Halves, level=level))
    batch = weighed(0.01)
    # each task has weights of its own
    for k, name in enumerate(batch.weights):
        batch.weights[name] = batch.weights[name].roll(k)
    model.training_step(batch, 0).backward()
    expected = reference(model, batch, level)
    for p in (*model.sharing.parameters(), *model.heads.parameters()):
        torch.testing.assert_close(p.grad, expected[id(p)], rtol=1e-7, atol=1e-10)


def test_the_gramian_and_affinities_count_weights():
    model = fitted(model_of(partial(PCGrad, level="parameters")))
    wanted = model.task_gramian(repeated())
    torch.testing.assert_close(model.task_gramian(weighed(0.1)), wanted, rtol=1e-8, atol=1e-12)
    for got, expected in zip(
        model.step.task_affinities(weighed(0.1)),
        model.step.task_affinities(repeated()),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-10, equal_nan=True)


def test_a_task_without_weight_leaves_the_balancing():
    model = model_of(StaticWeights)
    batch = batch_of()
    batch.weights = {"number": torch.zeros(24, dtype=torch.float64)}
    gradients(model, batch)
    at = model.names.index("number")
    assert model.step.losses_T[at] == 0
    totals_2T = torch.stack([torch.zeros(len(model.names)), torch.ones(len(model.names))])
    totals_2T[1, at] = 0
    losses, _ = model.step.normalise(totals_2T)
    assert losses.present_T.tolist() == [k != at for k in range(len(model.names))]
    assert not any(p.grad.any() for p in model.heads["number"].parameters())


def test_counts_below_one_are_kept():
    assert invert_counts(torch.tensor([0.0, 0.25, 3.0])).tolist() == [1, 4, pytest.approx(1 / 3)]


def test_an_evaluation_weighs_losses_and_metrics():
    model = model_of(StaticWeights)
    evaluated = []
    for batch in (repeated(), weighed(0.1)):
        evaluation = Evaluation(model)
        with torch.no_grad():
            evaluation.add(batch)
        evaluated.append(evaluation.finish("val"))
    wanted, got = evaluated
    assert got == pytest.approx(wanted, rel=1e-6, abs=1e-6, nan_ok=True)


def test_rows_carry_weights_and_padding_has_none():
    inputs = torch.arange(3.0)[:, None]
    targets = {"a": torch.tensor([1.0, 0.0, 1.0]), "b": torch.tensor([0, 1, 2])}
    rows = Rows(inputs, targets, weights={"a": torch.tensor([0.5, 0.0, 2.0])})
    batch = rows[torch.tensor([2, 1, 0, PADDING])]
    assert batch.weights["a"].tolist() == [2, 0, 0.5, 0]
    # a label of weight 0 counts nowhere, nor does padding
    assert is_labelled(batch.targets["a"]).tolist() == [True, False, True, False]
    assert batch.targets["b"].tolist() == [2, 1, 0, -100]
    assert targets["a"].tolist() == [1, 0, 1]
    assert batch.to(torch.float64).weights["a"].dtype == torch.float64

    tables = [Rows({"x": inputs}, dict(targets), weights=rows.weights) for _ in range(2)]
    both = tables[0].append(tables[1])
    assert both.weights["a"].tolist() == [0.5, 0, 2, 0.5, 0, 2]


def test_sources_with_and_without_weights():
    task = BinaryClassification(classes=("no", "yes"))
    inputs = torch.arange(2.0)[:, None]
    with_weights = Rows(inputs, {"a": torch.ones(2)}, weights={"a": torch.tensor([0.5, 2.0])})
    without = Rows(inputs, {"b": torch.ones(2)})
    rows = MultiSourceDataset([with_weights, without], ["", ""], {"a": task, "b": task})
    batch = rows[torch.tensor([1, 2, 0, PADDING])]
    # the rows of a source are next to each other
    assert batch.ids.tolist() == [1, 0, 2, PADDING]
    assert batch.weights["a"].tolist() == [2, 0.5, 0, 0]
    assert batch.weights.keys() == {"a"}
    assert rows[torch.tensor([2, 3])].weights["a"].tolist() == [0, 0]


def test_weights_of_one_change_no_bit():
    model = model_of(StaticWeights).float()
    batch = batch_of()
    batch.inputs = batch.inputs.float()
    batch.targets = {
        name: y.float() if y.is_floating_point() else y for name, y in batch.targets.items()
    }
    wanted = gradients(model, batch)
    ones = dict.fromkeys(batch.targets, torch.ones(24))
    for one, other in zip(gradients(model, replace(batch, weights=ones)), wanted, strict=True):
        assert torch.equal(one, other)


def test_a_sum_of_weights_in_16_bits_keeps_its_digits():
    model = model_of(StaticWeights)
    targets = {name: y.repeat(50, *[1] * (y.ndim - 1)) for name, y in batch_of().targets.items()}
    weights = dict.fromkeys(targets, torch.ones(1200, dtype=torch.bfloat16))
    plain = model.heads.label_counts(targets)
    assert torch.equal(model.heads.label_counts(targets, weights), plain.float())
