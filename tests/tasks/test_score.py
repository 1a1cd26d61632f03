"""The score: which tasks count in it and how much, and what it is where some have none."""

from collections.abc import Mapping
from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.errors import UserError
from src.tasks.score import ScoreSetting, compute_mean, read_score_weights

TASKS = ("income", "hours", "married")


@pytest.mark.parametrize(
    ("setting", "weights"),
    [
        (None, [1, 1, 1]),
        ("hours", [0, 1, 0]),
        ({"income": 2.0, "hours": 0.5}, [2, 0.5, 0]),
        ({"income": 1.0, "hours": 0.0, "married": 0.0}, [1, 0, 0]),
    ],
)
def test_how_much_each_task_counts(setting: ScoreSetting, weights: list[float]) -> None:
    assert read_score_weights(setting, TASKS) == dict(zip(TASKS, weights, strict=True))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("incme", "watch.score names 'incme', which is no task; did you mean 'income'?"),
        ({"age": 1.0}, "which is no task; there are income, hours, married"),
        ({"income": -1.0}, "gives 'income' the weight -1.0; it must be a finite number"),
        ({"income": nan}, "gives 'income' the weight nan"),
        ({"income": inf}, "gives 'income' the weight inf"),
        ({"income": 0.0, "hours": 0.0}, "gives no task a weight"),
        ({}, "gives no task a weight"),
    ],
)
def test_weights_of_no_mean_are_refused(setting: ScoreSetting, says: str) -> None:
    with pytest.raises(UserError) as refusal:
        read_score_weights(setting, TASKS)
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "weights", "mean"),
    [
        ({"a": 1.0, "b": 3.0, "c": nan}, {"a": 1.0, "b": 0.5, "c": 1.0}, 2.5 / 1.5),
        ({"a": 1.0, "b": 3.0}, {"a": 1.0, "b": 0.0}, 1.0),
        # a task that has diverged does not count where its weight is 0, and 0 x inf is NaN
        ({"a": 1.0, "b": -inf}, {"a": 1.0, "b": 0.0}, 1.0),
        ({"a": 1.0, "b": -inf}, {"a": 1.0, "b": 0.1}, -inf),
    ],
)
def test_the_mean_of_what_is_known(
    values: Mapping[str, float], weights: Mapping[str, float], mean: float
) -> None:
    assert compute_mean(values, weights) == pytest.approx(mean)


def test_no_value_has_no_mean() -> None:
    assert isnan(compute_mean({"a": nan}, {"a": 1.0}))
    assert isnan(compute_mean({"a": nan, "b": 1.0}, {"a": 1.0, "b": 0.0}))


NUMBERS = st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0.01, 100)), min_size=1, max_size=9)


@given(NUMBERS)
def test_the_mean_is_that_of_numpy(pairs: list[tuple[float, float]]) -> None:
    values = {str(k): value for k, (value, _) in enumerate(pairs)}
    weights = {str(k): weight for k, (_, weight) in enumerate(pairs)}
    expected = np.average([*values.values()], weights=[*weights.values()])
    assert compute_mean(values, weights) == pytest.approx(expected, rel=1e-9, abs=1e-9)

    # of equal weights to the last bit what a plain mean is
    alike = dict.fromkeys(values, 1.0)
    assert compute_mean(values, alike) == sum(values.values()) / len(values)
