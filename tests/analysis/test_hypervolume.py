"""Hypervolumes against a count of cells, and lattices of preferences."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.analysis.hypervolume import list_preferences, measure_hypervolume


def count_cells(points, size):
    """The volume of whole unit cells that some point dominates."""
    T = points.shape[1]
    cells = np.array(list(itertools.product(range(size), repeat=T)))
    return int((cells[:, None] + 1 <= points[None]).all(-1).any(1).sum())


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3).flatmap(
        lambda T: st.lists(
            st.lists(st.integers(-1, 5), min_size=T, max_size=T), min_size=1, max_size=8
        )
    )
)
def test_against_a_count_of_cells(points):
    array = np.array(points, dtype=float)
    found = measure_hypervolume(array, np.zeros(array.shape[1]))
    assert found.value == pytest.approx(count_cells(array, 5), abs=1e-9)
    assert found.error == 0


@settings(deadline=None, max_examples=10)
@given(st.lists(st.lists(st.integers(1, 4), min_size=4, max_size=4), min_size=1, max_size=6))
def test_four_tasks_are_estimated(points):
    array = np.array(points, dtype=float)
    found = measure_hypervolume(array, np.zeros(4))
    assert found.value == pytest.approx(count_cells(array, 4), abs=6 * found.error + 1e-9)


def test_it_moves_with_the_reference_and_leaves_out_what_is_worse_or_no_number():
    points = np.array([[2.0, 3.0], [3.0, 2.0], [1.0, 9.0], [np.nan, 9.0], [np.inf, 0.5]])
    assert measure_hypervolume(points, np.array([1.0, 1.0])).value == pytest.approx(3.0)
    assert measure_hypervolume(points - 7, np.array([-6.0, -6.0])).value == pytest.approx(3.0)
    assert measure_hypervolume(points, np.array([5.0, 5.0])).value == 0


def test_preferences_are_a_lattice():
    np.testing.assert_allclose(list_preferences(2, 3), [[1, 0], [0.5, 0.5], [0, 1]])
    three = list_preferences(3, 5)
    assert len(three) == 15
    np.testing.assert_allclose(three.sum(1), 1)
    assert len(np.unique(three, axis=0)) == 15
    assert list_preferences(1, 4).tolist() == [[1.0]]
