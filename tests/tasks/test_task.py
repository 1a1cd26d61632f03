import importlib
import json

import numpy as np
import pytest
import torch

from src.tasks import MISSING, BadLabel, BinaryClassification, Classification, MultilabelClassification, Regression, labelled
from src.tasks.head import Head
from src.tasks.task import LabelCount, as_numbers, classes_as_integers, constant, distinct, known, position_in

NAN = float("nan")
KINDS = [
    Classification(classes=("a", "b")),
    BinaryClassification(classes=(0, 1)),
    MultilabelClassification(labels=("a", "b")),
    Regression(mean=(0.0,), std=(1.0,)),
]


def test_labelled():
    assert labelled(torch.tensor([0.0, NAN, -100.0])).tolist() == [True, False, True]
    assert labelled(torch.tensor([0, MISSING, 3])).tolist() == [True, False, True]


def test_classes_as_integers():
    assert classes_as_integers(torch.tensor([1.0, NAN, 0.0])).tolist() == [1, MISSING, 0]


def test_known():
    assert known(np.array([1.0, NAN])).tolist() == [True, False]
    assert known(np.array([1, 2])).tolist() == [True, True]
    assert known(np.array([["a", None], [NAN, 0]], dtype=object)).tolist() == [[True, False], [False, True]]


def test_as_numbers():
    np.testing.assert_array_equal(as_numbers(np.array(["3.5", None, True, 2], dtype=object)), [3.5, NAN, 1, 2])
    with pytest.raises(BadLabel, match="'x'") as caught:
        as_numbers(np.array([[1, 2], [3, "x"]], dtype=object))
    assert caught.value.row == 1
    with pytest.raises(BadLabel, match="-inf"):
        as_numbers(np.array([0.0, -np.inf]))


def test_distinct_orders_numbers_by_size_and_words_by_alphabet():
    assert distinct(np.array([10, 9, None, 10, -1], dtype=object)) == (-1, 9, 10)
    assert distinct(np.array(["b", "a", None], dtype=object)) == ("a", "b")
    assert distinct(np.array([2.5, NAN, 1.0])) == (1.0, 2.5)
    assert all(type(v) is float for v in distinct(np.array([2.5, 1.0])))  # plain values, which JSON can hold


def test_position_in():
    assert position_in(("a", "b"), np.array(["b", None, "a"], dtype=object)).tolist() == [1, MISSING, 0]


def test_label_count_adds_up():
    count = LabelCount(2, 3)
    count.update(torch.tensor([[1, 0, 2], [0, 0, 1]]))
    count.update(torch.tensor([[1, 0, 0], [0, 5, 0]]))
    assert count.compute().tolist() == [[2, 0, 2], [0, 5, 1]]


def test_a_constant_made_in_inference_mode_is_an_ordinary_tensor():
    with torch.inference_mode():
        tensor = constant((0.123, 4.0), (torch.device("cpu"), torch.float32))
    assert not tensor.is_inference()
    assert tensor.tolist() == pytest.approx([0.123, 4.0])


@pytest.mark.parametrize("task", KINDS, ids=lambda task: type(task).__name__)
def test_description_is_plain_and_complete(task):
    described = json.loads(json.dumps(task.describe()))
    module, _, name = described.pop("kind").rpartition(".")
    again = type(task)(**{k: tuple(v) if isinstance(v, list) else v for k, v in described.items()})
    assert getattr(importlib.import_module(module), name) is type(task)
    assert again == task


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize("task", KINDS, ids=lambda task: type(task).__name__)
def test_all_metrics_are_undefined_before_any_batch(task):
    computed = task.compute(task.metrics())
    assert list(computed) == list(task.metric_names)
    assert torch.stack(list(computed.values())).isnan().all()


@pytest.mark.parametrize("task", KINDS, ids=lambda task: type(task).__name__)
def test_tasks_that_differ_in_what_the_loss_depends_on_are_not_alike(task):
    from dataclasses import replace

    assert replace(task, weight=3.0).loss_key() == task.loss_key()
    assert replace(task, depth=1).loss_key() != task.loss_key()
    other = {
        Classification: {"label_smoothing": 0.1},
        BinaryClassification: {"pos_weight": 2.0},
        MultilabelClassification: {"pos_weight": 2.0},
        Regression: {"loss": "mae"},
    }[type(task)]
    assert replace(task, **other).loss_key() != task.loss_key()


@pytest.mark.parametrize(
    ("depth", "parameters"), [(0, 5 * 3 + 3), (1, 5 * 8 + 8 + 8 * 3 + 3), (2, 5 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3)]
)
def test_head(depth, parameters):
    head = Head(5, 3, depth=depth, width=8)
    assert sum(p.numel() for p in head.parameters()) == parameters
    assert len(head.linears) == depth + 1
    z = torch.randn(4, 5)
    x = z
    for i, layer in enumerate(head.linears):
        x = (torch.nn.functional.gelu(x) if i else x) @ layer.weight.T + layer.bias
    np.testing.assert_allclose(head(z).detach(), x.detach(), atol=1e-6)
