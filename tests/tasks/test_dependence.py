"""Labels that count only where another says so, and products of probabilities, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import UserError
from src.tasks import BinaryClassification, Classification, Regression
from src.tasks.dependence import (
    check_dependence,
    decode_factor,
    multiply_probabilities,
    order_by_dependence,
    rename_dependence,
    resolve_labels,
)

NAN = float("nan")


def binary(**settings):
    return BinaryClassification(classes=("no", "yes"), **settings)


def number(**settings):
    return Regression(mean=(0.0,), std=(1.0,), **settings)


CHAIN = {
    "buy": binary(depends_on="cart", entire_space=True),
    "cart": binary(depends_on="click", entire_space=True),
    "click": binary(),
}


# -- labels ----------------------------------------------------------------------------------------
def test_labels_count_where_another_is_positive():
    tasks = {
        "price": number(where="click"),
        "click": binary(),
        "kind": Classification(classes=("cat", "dog"), where="click=no"),
        "weight": number(where="kind=dog"),
    }
    targets = {
        "click": torch.tensor([1.0, 0.0, NAN, 0.0]),
        "price": torch.tensor([[1.0, 2.0]] * 4),
        "kind": torch.tensor([1, 1, 1, 0]),
        "weight": torch.tensor([5.0, 6.0, 7.0, 8.0]),
    }
    found = resolve_labels(targets, tasks)
    assert found["click"] is targets["click"]
    assert found["price"].isnan().all(1).tolist() == [False, True, True, True]
    assert found["kind"].tolist() == [-100, 1, -100, 0]
    # a label that does not count says nothing of others
    torch.testing.assert_close(found["weight"], torch.tensor([NAN, 6.0, NAN, NAN]), equal_nan=True)
    assert targets["kind"].tolist() == [1, 1, 1, 0]


def test_nobody_buys_without_a_click():
    targets = {
        "click": torch.tensor([0.0, 0.0, 1.0, NAN]),
        "cart": torch.tensor([NAN, 1.0, 1.0, 1.0]),
        "buy": torch.tensor([NAN, 1.0, NAN, 0.0]),
    }
    found = resolve_labels(targets, CHAIN)
    torch.testing.assert_close(found["cart"], torch.tensor([0.0, 0.0, 1.0, 1.0]), equal_nan=True)
    torch.testing.assert_close(found["buy"], torch.tensor([0.0, 0.0, NAN, 0.0]), equal_nan=True)


def test_tasks_are_ordered_behind_the_tasks_that_they_depend_on():
    assert order_by_dependence(CHAIN) == ["click", "cart", "buy"]
    check_dependence(CHAIN)


def test_names_get_a_prefix():
    assert rename_dependence(CHAIN["buy"], "shop-").depends_on == "shop-cart"
    assert rename_dependence(number(where="kind=dog"), "shop-").where == "shop-kind=dog"
    assert rename_dependence(CHAIN["click"], "shop-") is CHAIN["click"]
    assert rename_dependence(CHAIN["buy"], "") is CHAIN["buy"]


KIND = Classification(classes=("cat", "dog"))


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({"a": number(where="clik"), "click": binary()}, "no task: did you mean 'click'"),
        ({"a": number(where="kind"), "kind": KIND}, "has no positive class: say which one counts"),
        ({"a": number(where="kind=dug"), "kind": KIND}, "no class of 'kind': did you mean 'dog'"),
        ({"a": number(where="b"), "b": number()}, "a Regression, where a task with classes"),
        ({"a": binary(where="b"), "b": binary(where="a")}, "depends on itself: a -> b -> a"),
        ({"a": binary(where="a")}, "depends on itself: a -> a"),
        (
            {"a": binary(depends_on="b", entire_space=True)},
            "depends_on names 'b', which is no task",
        ),
        (
            {"a": binary(depends_on="b", entire_space=True), "b": number()},
            "needs two tasks of kind BinaryClassification",
        ),
        (
            {"a": binary(depends_on="b", entire_space=True, where="b"), "b": binary()},
            "contradict each other",
        ),
    ],
)
def test_what_cannot_be_is_refused(tasks, words):
    with pytest.raises(UserError, match=words):
        check_dependence(tasks)


@pytest.mark.parametrize("settings", [{"depends_on": "click"}, {"entire_space": True}])
def test_neither_setting_is_ignored(settings):
    with pytest.raises(UserError, match="set both, or where"):
        binary(**settings)


# -- probabilities ---------------------------------------------------------------------------------
@given(a=st.floats(-12, 12), b=st.floats(-12, 12))
@settings(deadline=None)
def test_the_logit_of_a_product_and_its_derivatives(a, b):
    places = torch.tensor([a, b], dtype=torch.float64, requires_grad=True)
    got = multiply_probabilities(*places)
    (slopes,) = torch.autograd.grad(got, places)
    wanted = torch.logit(places[0].sigmoid() * places[1].sigmoid())
    (expected,) = torch.autograd.grad(wanted, places)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-6, abs=1e-6)
    torch.testing.assert_close(slopes, expected, rtol=1e-4, atol=1e-6)


def test_products_near_0_and_1_stay_finite():
    a = torch.tensor([300.0, -300.0, 300.0], requires_grad=True)
    b = torch.tensor([300.0, -300.0, -5.0])
    got = multiply_probabilities(a, b)
    # -log(2 exp(-300)) = 300 - log 2
    torch.testing.assert_close(got, torch.tensor([300 - 0.6931472, -600.0, -5.0]))
    got.sum().backward()
    torch.testing.assert_close(a.grad, torch.tensor([0.5, 1.0, 0.0]))


def test_the_conditional_probability_is_a_column():
    a = torch.tensor([[0.3], [-40.0]], dtype=torch.float64)
    b = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    outputs = {"click": a, "cart": multiply_probabilities(a, b)}
    column = decode_factor("cart", CHAIN, outputs)["p_yes_if_click"]
    assert column == pytest.approx(b.sigmoid().flatten().tolist())
    assert decode_factor("click", CHAIN, outputs) == {}
