"""Distances of columns against scipy, and what they say in the data's own words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, ks_2samp

from src.analysis.shift.distances import (
    compare_columns,
    find_beyond_chance,
    find_ks_probability,
    find_table_probability,
    measure_ks,
)
from src.analysis.shift.values import ColumnValues

numbers = st.lists(st.integers(-3, 3), min_size=1, max_size=40)


@given(numbers, numbers)
def test_ks_is_that_of_scipy(x, y):
    ours = measure_ks(np.array(x, float), np.array(y, float))
    with np.errstate(all="ignore"):
        # scipy's probability of samples of one row is not defined, and not wanted
        theirs = ks_2samp(x, y, method="asymp").statistic
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("distance", [0.02, 0.05, 0.08])
def test_the_probability_of_ks_is_near_the_exact_one(distance):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=900), rng.normal(size=700) + distance * 2
    found = ks_2samp(x, y)
    ours = find_ks_probability(measure_ks(x, y), 900, 700)
    assert ours == pytest.approx(found.pvalue, abs=0.03)


def test_the_probability_of_a_table_is_that_of_scipy():
    counts = np.array([[40.0, 30, 0, 30], [55, 70, 0, 45]])
    theirs = chi2_contingency(counts[:, [0, 1, 3]], correction=False).pvalue
    assert find_table_probability(*counts) == pytest.approx(theirs, rel=1e-9)
    assert find_table_probability(np.array([5.0]), np.array([9.0])) == 1.0


def number(name, values, **settings):
    return ColumnValues(name, np.array(values, dtype=float), **settings)


def test_columns_are_ordered_and_told_in_their_units():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 2000))
    before = [number("flat", x[0]), number("age", x[0], unit=(40.0, 10.0))]
    after = [number("flat", x[1]), number("age", x[1] + 1, unit=(40.0, 10.0))]
    first, second = compare_columns(before, after)
    assert (first.column, second.column) == ("age", "flat")
    assert first.mean_difference == pytest.approx(1, abs=0.06)
    shown = [float(word) for word in first.words.split()[1::2]]
    assert shown == pytest.approx([40, 50], abs=0.8)
    assert find_beyond_chance([first, second]) == [first]


def test_missing_values_are_a_shift():
    values = np.random.default_rng(2).normal(size=1000)
    holes = np.where(np.arange(1000) % 4 == 0, np.nan, values)
    (found,) = compare_columns([number("age", values)], [number("age", holes)])
    assert (found.missing_before, found.missing_after) == (0, 0.25)
    assert found.p < 1e-6
    (gone,) = compare_columns([number("age", values)], [number("age", [np.nan] * 30)])
    assert gone.missing_after == 1
    assert gone.words == "all missing"


def category(values, words=("a", "b", None), missing=3):
    return ColumnValues("city", np.array(values), True, words, missing_code=missing)


def test_categories_are_told_in_their_words():
    before = category([1] * 60 + [2] * 30 + [3] * 10)
    after = category([1] * 30 + [2] * 60 + [3] * 10)
    (found,) = compare_columns([before], [after])
    assert found.distance == pytest.approx(0.3)
    assert found.words in ("'a' 0.600 -> 0.300", "'b' 0.300 -> 0.600")
    assert (found.missing_before, found.missing_after, found.unseen) == (0.1, 0.1, 0.0)


def test_new_words_are_counted():
    (found,) = compare_columns([category([1] * 80)], [category([1] * 60 + [0] * 20)])
    assert found.unseen == 0.25
    assert found.distance == pytest.approx(0.25)


def test_words_of_predictions_are_matched_by_name():
    ours = category([1] * 50 + [2] * 50, ("no", "yes"), None)
    theirs = category([1] * 50 + [2] * 50, ("maybe", "no"), None)
    (found,) = compare_columns([ours], [theirs])
    assert found.distance == pytest.approx(0.5)
    (same,) = compare_columns([ours], [category([2] * 50 + [1] * 50, ("yes", "no"), None)])
    assert same.distance == 0


def test_equal_constants_are_no_shift_and_others_an_infinite_one():
    (same,) = compare_columns([number("x", [2.0] * 30)], [number("x", [2.0] * 30)])
    assert (same.distance, same.mean_difference) == (0, 0)
    (other,) = compare_columns([number("x", [2.0] * 30)], [number("x", [3.0] * 30)])
    assert (other.distance, other.mean_difference) == (1, np.inf)


def test_columns_of_the_same_rows_alarm_rarely():
    """Bonferroni: in 5 % of all samples at most, one of ten columns is marked."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(200):
        x, y = rng.normal(size=(5, 300)), rng.normal(size=(5, 200))
        codes = rng.geometric(0.2, size=(5, 500)).clip(0, 30)
        before = [number("x", row) for row in x] + [category(row[:300]) for row in codes]
        after = [number("x", row) for row in y] + [category(row[300:]) for row in codes]
        alarms += bool(find_beyond_chance(compare_columns(before, after)))
    # of 200 draws with a chance of 5 %, more than 19 have a chance of 1 %
    assert alarms <= 19
