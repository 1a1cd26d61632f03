import importlib
import json
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinarySpecificity

from src.tasks import (
    MISSING,
    BadLabel,
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    Task,
    is_labelled,
)
from src.tasks.head import Head
from src.tasks.keys import to_key
from src.tasks.label_count import LabelCount
from src.tasks.labels import find_classes, find_positions, is_known, to_integers, to_numbers
from src.tasks.task import make_constant

NAN = float("nan")
KINDS = [
    Classification(classes=("a", "b")),
    BinaryClassification(classes=(0, 1)),
    MultilabelClassification(labels=("a", "b")),
    Regression(mean=(0.0,), std=(1.0,)),
]


def test_labelled():
    assert is_labelled(torch.tensor([0.0, NAN, -100.0])).tolist() == [True, False, True]
    assert is_labelled(torch.tensor([0, MISSING, 3])).tolist() == [True, False, True]


def test_to_integers():
    assert to_integers(torch.tensor([1.0, NAN, 0.0])).tolist() == [1, MISSING, 0]


def test_known():
    assert is_known(np.array([1.0, NAN])).tolist() == [True, False]
    assert is_known(np.array([1, 2])).tolist() == [True, True]
    assert is_known(np.array([["a", None], [NAN, 0]], dtype=object)).tolist() == [
        [True, False],
        [False, True],
    ]


def test_as_numbers():
    np.testing.assert_array_equal(
        to_numbers(np.array(["3.5", None, True, 2], dtype=object)), [3.5, NAN, 1, 2]
    )
    with pytest.raises(BadLabel, match="'x'") as caught:
        to_numbers(np.array([[1, 2], [3, "x"]], dtype=object))
    assert caught.value.row == 1
    with pytest.raises(BadLabel, match="-inf"):
        to_numbers(np.array([0.0, -np.inf]))


def test_distinct_orders_numbers_by_size_and_words_by_alphabet():
    assert find_classes(np.array([10, 9, None, 10, -1], dtype=object)) == (-1, 9, 10)
    assert find_classes(np.array(["b", "a", None], dtype=object)) == ("a", "b")
    assert find_classes(np.array([2.5, NAN, 1.0])) == (1.0, 2.5)
    assert all(
        type(v) is float for v in find_classes(np.array([2.5, 1.0]))
    )  # plain values, which JSON can hold


def test_position_in():
    assert find_positions(("a", "b"), np.array(["b", None, "a"], dtype=object)).tolist() == [
        1,
        MISSING,
        0,
    ]


def test_label_count_adds_up():
    count = LabelCount(2, 3)
    count.update(torch.tensor([[1, 0, 2], [0, 0, 1]]))
    count.update(torch.tensor([[1, 0, 0], [0, 5, 0]]))
    assert count.compute().tolist() == [[2, 0, 2], [0, 5, 1]]


def test_a_constant_made_in_inference_mode_is_an_ordinary_tensor():
    with torch.inference_mode():
        tensor = make_constant((0.123, 4.0), (torch.device("cpu"), torch.float32))
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
    computed = task.compute(task.build_metrics())
    assert list(computed) == list(task.metric_names)
    assert torch.stack(list(computed.values())).isnan().all()


@pytest.mark.parametrize("task", KINDS, ids=lambda task: type(task).__name__)
def test_tasks_that_differ_in_what_the_loss_depends_on_are_not_alike(task):
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
    ("task", "same"),
    [
        (Classification(classes=("a", "b")), {"classes": (0, 1), "monitor": "f1"}),
        (
            BinaryClassification(classes=(0, 1)),
            {"classes": ("no", "yes"), "threshold": 0.25, "monitor": "f1"},
        ),
        (
            MultilabelClassification(labels=("a", "b")),
            {"labels": ("c", "d"), "thresholds": (0.1, 0.2), "per_label": True},
        ),
        (Regression(mean=(0.0,), std=(1.0,)), {"mean": (5.0,), "std": (2.0,), "monitor": "mae"}),
        (Regression(names=("u", "v")), {"names": ("x", "y"), "weight": 2.0}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Task) else "",
)
def test_names_and_what_no_loss_reads_do_not_keep_tasks_apart(task, same):
    assert replace(task, **same).loss_key() == task.loss_key()
    assert hash(task.loss_key()) == hash(replace(task, **same).loss_key())


def test_tasks_with_another_number_of_outputs_are_not_alike():
    assert Classification(classes=(0, 1)).loss_key() != Classification(classes=(0, 1, 2)).loss_key()
    assert Regression(names=("u",)).loss_key() != Regression().loss_key()


@dataclass(frozen=True, kw_only=True)
class Quantile(Regression):
    """A quantile of the label: its loss is asymmetric."""

    tau: float = 0.5
    note: str = ""

    def losses(self, outputs, targets):
        mask = is_labelled(targets)
        error = targets.where(mask, 0) - outputs.squeeze(-1)
        return torch.maximum(self.tau * error, (self.tau - 1) * error) * mask


@dataclass(frozen=True, kw_only=True)
class Noted(Quantile):
    """Says which fields its own loss leaves alone."""

    not_in_loss: ClassVar[tuple[str, ...]] = ("note", "mean", "std")

    def losses(self, outputs, targets):
        return super().losses(outputs, targets)


@dataclass(frozen=True, kw_only=True)
class Shifted(Regression):
    """A new setting without a new loss."""

    shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Unhashable(Regression):
    """Settings without a hash."""

    knots: list[float] = field(default_factory=list)
    names_of: dict[str, list[int]] = field(default_factory=dict)


def test_a_setting_of_a_kind_of_ones_own_keeps_tasks_apart():
    assert Quantile(tau=0.1).loss_key() != Quantile(tau=0.9).loss_key()
    assert Quantile(tau=0.1).loss_key() == Quantile(tau=0.1, weight=3.0).loss_key()
    assert (
        Quantile(note="a").loss_key() != Quantile(note="b").loss_key()
    )  # nobody says that its loss does not read it
    assert (
        Quantile(mean=(1.0,)).loss_key() != Quantile(mean=(2.0,)).loss_key()
    )  # a loss of its own may read them
    assert Noted(note="a", mean=(1.0,)).loss_key() == Noted(note="b", mean=(2.0,)).loss_key()
    assert Noted(tau=0.1).loss_key() != Noted(tau=0.9).loss_key()
    assert Shifted(shift=1.0).loss_key() != Shifted().loss_key()
    assert Shifted(mean=(1.0,)).loss_key() == Shifted(mean=(2.0,)).loss_key()
    assert Quantile().loss_key() != Regression().loss_key()


def test_settings_without_a_hash_count_by_what_they_hold():
    task = Unhashable(knots=[1.0, 2.0], names_of={"a": [1]})
    assert hash(task.loss_key()) == hash(
        Unhashable(knots=[1.0, 2.0], names_of={"a": [1]}).loss_key()
    )
    assert task.loss_key() != Unhashable(knots=[1.0, 3.0], names_of={"a": [1]}).loss_key()
    assert task.loss_key() != Unhashable(knots=[1.0, 2.0], names_of={"a": [2]}).loss_key()
    assert to_key(torch.ones(2)) == to_key(torch.ones(2)) != to_key(torch.zeros(2))


@pytest.mark.parametrize("name", ["loss", "count", "scores", "f1/weighted"])
def test_a_metric_with_a_name_that_means_something_else_is_refused(name):
    @dataclass(frozen=True, kw_only=True)
    class Own(Regression):
        metric_names: ClassVar[tuple[str, ...]] = (*Regression.metric_names, name)

    with pytest.raises(ValueError, match=f"Own: a metric cannot be named '{name}'.*: rename it"):
        Own()


def test_a_metric_may_be_added_to_a_kind():
    @dataclass(frozen=True, kw_only=True)
    class Careful(BinaryClassification):
        metric_names: ClassVar[tuple[str, ...]] = (
            *BinaryClassification.metric_names,
            "specificity",
        )

        def build_metrics(self):
            metrics = super().build_metrics()
            metrics.add_metrics({"specificity": BinarySpecificity(ignore_index=MISSING)})
            return metrics

    task = Careful(classes=(0, 1))
    metrics = task.build_metrics()
    metrics.update(
        **task.measure(
            torch.tensor([[1.0], [-1.0], [1.0], [2.0]]), torch.tensor([0.0, 0.0, 1.0, NAN])
        )
    )
    got = task.compute(metrics)
    assert got["specificity"] == 0.5
    assert got["accuracy"].item() == pytest.approx(2 / 3)
    assert list(got) == list(task.metric_names)


def test_what_a_score_is_in_words():
    assert Classification().describe_score() == "accuracy"
    assert BinaryClassification().describe_score() == "AUROC"
    assert (
        MultilabelClassification(monitor="average_precision").describe_score()
        == "average precision"
    )
    assert Regression().describe_score() == "R2, at least -1"
    assert Regression(monitor="rmse").describe_score() == "1 - RMSE / std, at least -1"


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(0, 5 * 3 + 3), (1, 5 * 8 + 8 + 8 * 3 + 3), (2, 5 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3)],
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


def test_a_pooled_head_reads_the_mean_over_the_places_that_are_not_padding() -> None:
    head = BinaryClassification(pooled=True).head(3)
    words = torch.tensor([[[1.0, 2, 3], [3, 2, 1], [0, 0, 0]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    means = torch.tensor([[2.0, 2, 2], [1 / 3, 1 / 3, 1 / 3]])
    expected = means @ head.linears[0].weight.T + head.linears[0].bias
    torch.testing.assert_close(head(words), expected)
    # the features of a sample, which are one vector already, stay as they are
    torch.testing.assert_close(head(means), expected)
    pixels = torch.zeros(2, 2, 2, 3)
    pixels[:, 0, 0] = 4.0
    torch.testing.assert_close(head(pixels), head(torch.ones(2, 3)))
    nobody = head(torch.zeros(1, 4, 3))
    torch.testing.assert_close(nobody, head.linears[0].bias[None])
