"""A space is read into choices and ranges; a mistake in it is one line that names the place."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.analysis.settings import spell
from src.analysis.space import (
    Choice,
    Range,
    count_points,
    describe_space,
    list_corners,
    read_space,
)
from src.errors import UserError
from src.files.yaml12 import load_as_written

SPACE = """
lr: {low: 1e-4, high: 0.01, log: true}
model.encoder.width: {low: 16, high: 64, integer: true}
model.balancer: [StaticWeights, UPGrad]
model.weights: [{digit: 1, odd: 2}, {digit: 2.50, odd: 1}]
"""


def test_choices_and_ranges() -> None:
    space = read_space(load_as_written(SPACE))
    assert space["lr"] == Range(1e-4, 0.01, log=True)
    assert space["model.encoder.width"] == Range(16, 64, integer=True)
    assert space["model.balancer"] == Choice(("StaticWeights", "UPGrad"))
    assert describe_space(space) == {
        "lr": {"low": 1e-4, "high": 0.01, "log": True, "integer": False},
        "model.encoder.width": {"low": 16, "high": 64, "log": False, "integer": True},
        "model.balancer": ["StaticWeights", "UPGrad"],
        "model.weights": ['{"digit": 1, "odd": 2}', '{"digit": 2.5, "odd": 1}'],
    }


def test_corners_have_each_value_and_each_bound() -> None:
    space = read_space(load_as_written("{lr: {low: 1, high: 2}, b: [x, y, z]}"))
    assert list(list_corners(space)) == [
        {"lr": 1.0, "b": "x"},
        {"lr": 2.0, "b": "x"},
        {"lr": 1.0, "b": "y"},
        {"lr": 1.0, "b": "z"},
    ]


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("{a: [1, 2, 3], b: [x, y]}", 6),
        ("{a: [1, 2, 3], b: {low: 2, high: 5, integer: true}}", 12),
        ("{a: [1, 2, 3], b: {low: 2, high: 5}}", None),
    ],
)
def test_points_are_counted(text: str, points: int | None) -> None:
    assert count_points(read_space(load_as_written(text))) == points


@given(
    st.floats(1e-9, 1e9, allow_subnormal=False),
    st.floats(1e-9, 1e9, allow_subnormal=False),
    st.floats(0, 1),
)
def test_a_number_of_a_range_is_short_and_within(a: float, b: float, share: float) -> None:
    part = Range(min(a, b), max(a, b))
    drawn = min(max(part.low + share * (part.high - part.low), part.low), part.high)
    value = part.read(drawn)
    assert part.low <= value <= part.high
    assert abs(value - drawn) <= 1e-3 * drawn
    if value not in (part.low, part.high):
        assert len(spell(value).partition("e")[0].replace(".", "").strip("0")) <= 4


def test_a_value_is_spelled_as_it_was_written() -> None:
    space = read_space(load_as_written("{a: [1e-3, 0x10, true]}"))
    assert [spell(value) for value in space["a"].list_bounds()] == ["1e-3", "0x10", "true"]
    assert isinstance(space["a"], Choice)
    assert spell(space["a"].read("0x10")) == "0x10"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[lr]", 'tuning.space is ["lr"], where settings with their values belong'),
        ("{}", "tuning.space is {}, where settings with their values belong"),
        ("{lr: 0.1}", "tuning.space: lr is 0.1; a list of values belongs there, or a range"),
        ("{lr: []}", "tuning.space: lr is an empty list"),
        ("{lr: [1, 2, 1]}", "tuning.space: lr has the value 1 twice"),
        ("{lr: [0.001, 1e-3]}", "tuning.space: lr has the value 1e-3 twice"),
        ("{lr: {low: 1, hihg: 2}}", "lr.hihg is no key of a range; did you mean 'high'?"),
        ("{lr: {low: 1}}", "lr.high is null; it must be a number"),
        ("{lr: {low: true, high: 2}}", "lr.low is true; it must be a number"),
        ("{lr: {low: a, high: 2}}", "lr.low is 'a'; it must be a number"),
        ("{lr: {low: 1, high: .inf}}", "lr.high is .inf; it must be a number"),
        ("{lr: {low: 2, high: 1}}", "lr from 2 to 1 is reversed: low must be below high"),
        ("{lr: {low: 1, high: 1}}", "lr from 1 to 1 is a single number"),
        ("{lr: {low: 0, high: 1, log: true}}", "lr.low is 0, whose logarithm is not defined"),
        ("{lr: {low: -1, high: 1, log: true}}", "lr.low is -1, whose logarithm is not defined"),
        ("{lr: {low: 1, high: 2, log: yes}}", "lr.log is 'yes'; it must be true or false"),
        ("{w: {low: 1.5, high: 3, integer: true}}", "w from 1.5 to 3 has integer: true"),
    ],
)
def test_mistakes(text: str, says: str) -> None:
    tree: Any = load_as_written(text)
    with pytest.raises(UserError) as error:
        read_space(tree)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
