"""The stacked computation of heads against the plain loop over them."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.batch import InputShape
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.heads import Heads
from src.tasks import (
    MISSING,
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    is_labelled,
)
from src.tasks.head import Head

NAN = float("nan")
D = 6


def tasks_of(depth=0):
    head = {"depth": depth, "width": 7}
    return {
        "a": Classification(classes=(0, 1, 2), **head),
        "b": Regression(mean=(0.0,), std=(1.0,), **head),
        "c": Classification(classes=("x", "y", "z"), weight=2.0, **head),
        "d": MultilabelClassification(labels=("u", "v"), **head),
        "e": BinaryClassification(classes=(0, 1), pos_weight=3.0, **head),
        "f": Regression(mean=(5.0,), std=(2.0,), monitor="mae", **head),
        "g": Regression(names=("u", "v"), mean=(0.0, 0.0), std=(1.0, 1.0), **head),
        "h": MultilabelClassification(labels=("s", "t"), **head),
        "i": Regression(mean=(0.0,), std=(1.0,), loss="huber", **head),
    }


def targets_for(tasks, rng, missing, *shape):
    def one(task):
        if isinstance(task, Classification):
            return torch.tensor(
                np.where(rng.random(shape) < missing, MISSING, rng.integers(3, size=shape))
            )
        wide = (*shape, task.out_features) if task.event_dims else shape
        values = (
            rng.normal(size=wide) if isinstance(task, Regression) else rng.integers(2, size=wide)
        )
        return torch.tensor(np.where(rng.random(wide) < missing, NAN, values), dtype=torch.float32)

    return {name: one(task) for name, task in tasks.items()}


def model_of(tasks, **settings):
    model = MultiTaskModel(
        tasks, InputShape((D,)), encoder=partial(MLP, width=D, depth=0), **settings
    )
    model.configure_model()
    return model


def test_alike_tasks_form_groups():
    heads = Heads(tasks_of(), dict.fromkeys("abcdefghi", D))
    assert [group.names for group in heads.groups] == [
        ("a", "c"),
        ("b", "f"),
        ("d", "h"),
        ("e",),
        ("g",),
        ("i",),
    ]


def test_features_of_another_size_form_another_group():
    tasks = {name: Regression() for name in "abc"}
    heads = Heads(tasks, {"a": 4, "b": 6, "c": 4})
    assert [group.names for group in heads.groups] == [("a", "c"), ("b",)]
    out = heads.split(heads({"a": torch.ones(2, 4), "b": torch.ones(2, 6), "c": torch.ones(2, 4)}))
    assert {name: tuple(o.shape) for name, o in out.items()} == {
        "a": (2, 1),
        "b": (2, 1),
        "c": (2, 1),
    }


def test_tasks_that_differ_in_what_no_loss_reads_are_one_group():
    numbers = {
        f"n{k}": Regression(mean=(float(k),), std=(k + 1.0,), weight=k + 1.0) for k in range(32)
    }
    flags = {f"b{k}": BinaryClassification(classes=(0, k + 1), threshold=k / 4) for k in range(3)}
    tasks = {**numbers, **flags}
    heads = Heads(tasks, dict.fromkeys(tasks, D))
    assert [group.names for group in heads.groups] == [tuple(numbers), tuple(flags)]


@dataclass(frozen=True, kw_only=True)
class Quantile(Regression):
    """A kind of one's own with a setting that its loss reads."""

    tau: float = 0.5

    def losses(self, outputs, targets):
        mask = is_labelled(targets)
        error = targets.where(mask, 0) - outputs.squeeze(-1)
        return torch.maximum(self.tau * error, (self.tau - 1) * error) * mask


def test_tasks_of_a_kind_of_ones_own_train_at_their_own_setting():
    tasks = {f"q{tau}": Quantile(tau=tau, mean=(0.0,), std=(1.0,)) for tau in (0.1, 0.9)}
    tasks["again"] = Quantile(tau=0.9, mean=(0.0,), std=(1.0,), weight=2.0)
    model = model_of({name.replace(".", ""): task for name, task in tasks.items()})
    assert [group.names for group in model.heads.groups] == [("q01",), ("q09", "again")]
    label = torch.tensor([1.0, 2.0, NAN])
    outputs = [torch.zeros(3, len(group.names), 1) for group in model.heads.groups]
    sums, counts = model.heads.loss_sums(outputs, dict.fromkeys(model.names, label))
    np.testing.assert_allclose(sums, [0.1 * 3, 0.9 * 3, 0.9 * 3], rtol=1e-6)
    assert counts.tolist() == [2, 2, 2]


class Odd(Head):
    """A head of another make."""

    def forward(self, x):
        return super().forward(x) ** 2


class OddRegression(Regression):
    def head(self, features):
        return Odd(features, self.out_features)


def test_a_head_of_another_make_runs_by_itself():
    heads = Heads(
        {"a": OddRegression(), "b": OddRegression(), "c": Regression()}, dict.fromkeys("abc", D)
    )
    assert [group.names for group in heads.groups] == [("a",), ("b",), ("c",)]
    z = torch.randn(3, D)
    out = heads.split(heads(dict.fromkeys("abc", z)))
    linear = heads["a"].linears[0]
    np.testing.assert_allclose(
        out["a"].detach(), ((z @ linear.weight.T + linear.bias) ** 2).detach(), atol=1e-6
    )


@settings(deadline=None, max_examples=25)
@given(
    depth=st.integers(0, 2),
    shared=st.booleans(),
    sequence=st.booleans(),
    missing=st.sampled_from([0.0, 0.4, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_stacked_heads_are_a_loop_over_heads(depth, shared, sequence, missing, seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    tasks = tasks_of(depth)
    model = model_of(tasks)
    shape = (4, 3) if sequence else (4,)
    base = torch.randn(*shape, D)
    features = {name: base if shared else torch.randn(*shape, D) for name in tasks}
    targets = targets_for(tasks, rng, missing, *shape)
    weights = torch.rand(len(tasks), dtype=torch.float64) + 0.5

    def gradients(forward):
        leaves = {id(z): z.clone().requires_grad_() for z in features.values()}
        sums, counts, outputs = forward({name: leaves[id(z)] for name, z in features.items()})
        model.zero_grad()
        (sums.double() @ weights).backward()
        parameters = {name: p.grad.clone() for name, p in model.heads.named_parameters()}
        return sums.detach(), counts, outputs, parameters, [leaf.grad for leaf in leaves.values()]

    def stacked(z):
        outputs = model.heads(z)
        sums, counts = model.heads.loss_sums(outputs, targets)
        split = model.heads.split(outputs)
        order = [model.names.index(name) for name in tasks]
        return sums[order], counts[order], {name: split[name].detach() for name in tasks}

    def looped(z):
        outputs = {name: model.heads[name](z[name]) for name in tasks}
        sums = torch.stack(
            [task.losses(outputs[name], targets[name]).sum() for name, task in tasks.items()]
        )
        counts = torch.stack(
            [
                (~t.isnan() if t.is_floating_point() else t != MISSING).sum()
                for t in targets.values()
            ]
        )
        return sums, counts, {name: out.detach() for name, out in outputs.items()}

    sums, counts, outputs, parameters, inputs = gradients(stacked)
    sums_, counts_, outputs_, parameters_, inputs_ = gradients(looped)
    np.testing.assert_allclose(sums, sums_, rtol=2e-6, atol=1e-6)
    assert counts.tolist() == counts_.tolist()
    for name, task in tasks.items():
        assert outputs[name].shape == (*shape, task.out_features)
        np.testing.assert_allclose(outputs[name], outputs_[name], rtol=1e-6, atol=1e-6)
    for name, gradient in parameters_.items():
        np.testing.assert_allclose(parameters[name], gradient, rtol=1e-5, atol=2e-6, err_msg=name)
    for gradient, gradient_ in zip(inputs, inputs_, strict=True):
        np.testing.assert_allclose(gradient, gradient_, rtol=1e-5, atol=2e-6)
    if missing == 1.0:
        assert sums.tolist() == [0] * len(tasks)
        assert counts.tolist() == [0] * len(tasks)
        assert all(
            not gradient.any() for gradient in parameters.values()
        )  # zero, neither None nor NaN


def test_outputs_are_fp32_whatever_the_features_are():
    heads = Heads(tasks_of(), dict.fromkeys("abcdefghi", D)).to(torch.bfloat16)
    z = torch.randn(3, D, dtype=torch.bfloat16)
    assert {out.dtype for out in heads(dict.fromkeys("abcdefghi", z))} == {torch.float32}


ATTRIBUTES = [
    "type",
    "train",
    "forward",
    "training",
    "to",
    "split",
    "groups",
    "paths",
    "values",
    "keys",
    "items",
    "update",
    "pop",
]


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_task_may_have_the_name_of_an_attribute(name):
    tasks = {
        name: Regression(mean=(0.0,), std=(1.0,)),
        f"{name}_": Regression(mean=(0.0,), std=(1.0,), loss="mae"),
    }
    model = model_of(tasks)
    assert model.heads[name] is not model.heads[f"{name}_"]
    out = model(torch.randn(2, D))
    assert list(out) == [name, f"{name}_"]
    features = model.sharing.encoder(torch.ones(1, D))
    np.testing.assert_allclose(
        model(torch.ones(1, D))[name].detach(), model.heads[name](features).detach(), atol=1e-6
    )
    model.metrics_of(name).update(
        **tasks[name].measure(torch.zeros(2, 1), torch.tensor([1.0, -1.0]))
    )
    assert tasks[name].compute(model.metrics_of(name))["mae"] == 1
    assert tasks[name].compute(model.metrics_of(f"{name}_"))["mae"].isnan()


def test_the_state_dict_names_each_head_by_its_task():
    keys = set(model_of({"age": Regression(), "type": Regression(depth=1)}).state_dict())
    assert {
        "heads.age.0.weight",
        "heads.age.0.bias",
        "heads.type_.0.weight",
        "heads.type_.2.bias",
    } <= keys
    assert not any(key.startswith("metrics") or "sums" in key for key in keys)


def test_one_row_and_no_row():
    heads = Heads(tasks_of(1), dict.fromkeys("abcdefghi", D))
    for rows in (0, 1):
        z = torch.randn(rows, D)
        assert [out.shape[0] for out in heads(dict.fromkeys("abcdefghi", z))] == [rows] * 6
