"""Groups of rows by words and by ranges of numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.analysis.fairness.groups import (
    check_values,
    find_edges,
    label_rows,
    list_groups,
    list_subsets,
    name_rows,
    order_values,
)
from src.errors import UserError


def test_words_and_a_few_numbers_are_groups_as_they_are():
    words = ["b", None, "a", "b"]
    assert find_edges(words) == ()
    assert label_rows(words, (), "x") == ["b", "missing", "a", "b"]
    assert order_values(["b", "missing", "a", "b"], ()) == ["a", "b", "missing"]
    assert find_edges(["0", "1", None, "1"]) == ()


def test_many_numbers_are_cut_into_quartiles_whose_names_are_their_bounds():
    ages = [str(age) for age in range(1, 101)]
    edges = find_edges(ages)
    assert edges == (25.0, 50.0, 75.0)
    labels = label_rows([*ages, None, "500", "-3"], edges, "age")
    assert labels[24:26] == ["at most 25", "over 25 to 50"]
    assert labels[-3:] == ["missing", "over 75", "at most 25"]
    assert [labels.count(name) for name in order_values(labels, edges)] == [26, 25, 25, 26, 1]
    assert find_edges(ages, bins=2) == (50.0,)


def test_a_word_among_numbers_of_new_rows_is_refused():
    with pytest.raises(UserError, match=r"row 2: age is 'old', where the groups are ranges"):
        label_rows(["3", "old"], (1.0, 2.0), "age")


@given(st.lists(st.integers(-1000, 1000), min_size=20, max_size=200), st.integers(2, 6))
def test_every_row_is_in_the_range_that_its_group_names(numbers, bins):
    words = [str(number) for number in numbers]
    edges = find_edges(words, bins)
    assert list(edges) == sorted(set(edges))
    if not edges:
        assert len(set(numbers)) <= bins
        return
    for number, name in zip(numbers, label_rows(words, edges, "x"), strict=True):
        low, high = -np.inf, np.inf
        if name.startswith("at most"):
            high = float(name.split()[-1])
        else:
            low = float(name.split()[1])
        if " to " in name:
            high = float(name.split()[-1])
        assert low < number <= high


def test_each_column_each_pair_and_all_together_are_compared():
    assert list_subsets(["a", "b", "c"]) == [
        ("a",),
        ("b",),
        ("c",),
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
        ("a", "b", "c"),
    ]
    assert list_subsets(["a"]) == [("a",)]


def test_an_intersection_without_rows_is_a_group():
    labels = {"sex": ["f", "f", "m"], "race": ["x", "y", "x"]}
    groups = list_groups(labels, {"sex": ["f", "m"], "race": ["x", "y"]})
    found = {group.name: group.rows.tolist() for group in groups}
    assert found == {
        "all rows": [0, 1, 2],
        "f": [0, 1],
        "m": [2],
        "x": [0, 2],
        "y": [1],
        "f, x": [0],
        "f, y": [1],
        "m, x": [2],
        "m, y": [],
    }
    assert name_rows(["sex", "race"], list(labels.values())) == ["f, x", "f, y", "m, x"]


def test_columns_that_tell_no_groups_are_refused():
    with pytest.raises(UserError, match="names 'x', which is 'a' in each row"):
        check_values("x", ["a"])
    with pytest.raises(UserError, match="names 'id', which has 99 values; at most 60"):
        check_values("id", [str(k) for k in range(99)])
