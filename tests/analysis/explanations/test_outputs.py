"""The number that is explained, against what each kind of task decodes."""

import pytest
import torch

from src.analysis.explanations.outputs import list_outputs
from src.tasks import (
    BinaryClassification,
    CensoredRegression,
    Classification,
    Counts,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
    Survival,
)

DRAW = torch.Generator().manual_seed(0)
NUMBERS = {
    "regression": Regression(mean=(40.0,), std=(12.0,)),
    "quantiles": Quantiles(mean=40.0, std=12.0),
    "counts": Counts(rate=3.0),
    "censored": CensoredRegression(mean=40.0, std=12.0),
    "survival": Survival(ends=(1.0, 4.0, 9.0), names=("time", "event")),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_in_the_unit_of_the_label(name):
    task = NUMBERS[name]
    outputs = torch.randn(6, task.out_features, generator=DRAW)
    (output,) = list_outputs("hours", task, "predicted")
    found = output.read(outputs, outputs)
    assert found.tolist() == pytest.approx(task.decode(outputs)[""], rel=1e-5)
    assert output.title == "hours"


def test_a_vector_has_one_number_each():
    task = Regression(names=("x", "y"), mean=(1.0, 2.0), std=(3.0, 4.0))
    outputs = torch.tensor([[1.0, -1.0]])
    first, second = list_outputs("place", task, "predicted")
    assert (first.title, first.unit) == ("place: x", "the unit of x")
    assert float(first.read(outputs, outputs)) == pytest.approx(4)
    assert float(second.read(outputs, outputs)) == pytest.approx(-2)


def test_a_binary_task_and_each_label_have_log_odds():
    outputs = torch.tensor([[0.5], [-2.0]])
    (output,) = list_outputs("income", BinaryClassification(classes=("low", "high")), "predicted")
    assert output.meaning == "log odds of 'high'"
    assert torch.equal(output.read(outputs, outputs), outputs[:, 0])
    task = MultilabelClassification(labels=("a", "b"))
    labels = torch.tensor([[1.0, 2.0]])
    found = list_outputs("tags", task, "predicted")
    assert [one.title for one in found] == ["tags: a", "tags: b"]
    assert [float(one.read(labels, labels)) for one in found] == [1, 2]


def test_the_class_is_the_one_of_the_row_as_it_is_and_a_shift_means_nothing():
    task = Classification(classes=("a", "b", "c"))
    plain = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 6.0]])
    outputs = torch.tensor([[1.0, 5.0, 0.0], [1.0, 5.0, 0.0]])
    (output,) = list_outputs("grade", task, "predicted")
    assert output.read(outputs, plain).tolist() == [-1, -2]
    assert output.read(outputs + 7, plain).tolist() == [-1, -2]
    each = list_outputs("grade", task, "each")
    assert [one.name for one in each] == ["a", "b", "c"]
    total = sum(one.read(outputs, plain) for one in each)
    assert total.tolist() == [0, 0]


@pytest.mark.parametrize("method", ["corn", "cumulative"])
def test_an_ordinal_task_has_its_expected_rank(method):
    task = Ordinal(classes=(1, 2, 3), method=method)
    outputs = torch.randn(5, 2, generator=DRAW)
    (output,) = list_outputs("grade", task, "each")
    probabilities = task.log_probabilities(outputs).exp()
    expected = probabilities[:, 1] + 2 * probabilities[:, 2]
    torch.testing.assert_close(output.read(outputs, outputs), expected)
