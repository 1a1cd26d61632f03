import numpy as np
import pytest

from src.tasks import BadLabel
from src.tasks.bounds import split_bounds, write_bound


def test_marks_become_signs():
    values = np.array(
        [12.5, "12.5", ">10", " < 0.1", ">= 3", "≤-2", "≥ 1e3", None, 4], dtype=object
    )
    numbers, signs = split_bounds(values)
    np.testing.assert_array_equal(numbers, [12.5, 12.5, 10, 0.1, 3, -2, 1000, np.nan, 4])
    np.testing.assert_array_equal(signs, [0, 0, 1, -1, 1, -1, 1, np.nan, 0])


def test_plain_numbers_have_no_bounds():
    numbers, signs = split_bounds(np.array([1.5, np.nan]))
    np.testing.assert_array_equal(numbers, [1.5, np.nan])
    np.testing.assert_array_equal(signs, [0, np.nan])


@pytest.mark.parametrize("text", ["~5", ">", "> high", "<>3", "inf", ">inf"])
def test_other_texts_are_refused(text):
    with pytest.raises(BadLabel, match="or a bound such as >10") as caught:
        split_bounds(np.array([1.0, text], dtype=object))
    assert caught.value.row == 1
    assert text in str(caught.value)


def test_people_read_marks():
    assert [write_bound(0.1, -1.0), write_bound(10.0, 1.0), write_bound(-2.5, 0.0)] == [
        *("<0.1", ">10", "-2.5")
    ]
    assert write_bound(1 / 3, 0.0, digits=15) == "0.333333333333333"
