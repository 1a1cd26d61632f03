"""The best partition is the best of all set partitions."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from src.analysis.partition import (
    MOST_EXACT,
    GroupValues,
    branch_and_bound,
    find_partition,
    merge_and_move,
)

NUMBERS = st.floats(-1, 1, allow_subnormal=False) | st.sampled_from([0.0, 0.5, -0.5])


def set_partitions(tasks: list[int]) -> Iterator[list[list[int]]]:
    """Yields all partitions of a list."""
    if not tasks:
        yield []
        return
    first, *others = tasks
    for partition in set_partitions(others):
        yield [[first], *partition]
        for k, group in enumerate(partition):
            yield [*partition[:k], [first, *group], *partition[k + 1 :]]


def value_of(partition: list[list[int]], affinities: np.ndarray) -> float:
    """The sum over tasks of the mean affinity from the other members, task by task."""
    total = 0.0
    for group in partition:
        for task in group:
            others = [affinities[other, task] for other in group if other != task]
            total += float(np.mean(others)) if others else 0.0
    return total


@st.composite
def problems(draw: st.DrawFn, most: int = 7) -> tuple[np.ndarray, int]:
    count = draw(st.integers(1, most))
    affinities = draw(arrays(np.float64, (count, count), elements=NUMBERS))
    return affinities, draw(st.integers(1, count))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_no_set_partition_is_better(problem: tuple[np.ndarray, int]) -> None:
    affinities, networks = problem
    found = find_partition(affinities, networks)
    assert found.is_exact
    assert len(found.groups) <= networks
    assert sorted(task for group in found.groups for task in group) == [*range(len(affinities))]
    every = [p for p in set_partitions([*range(len(affinities))]) if len(p) <= networks]
    best = max(value_of(partition, affinities) for partition in every)
    assert found.value == pytest.approx(best, abs=1e-9)
    assert value_of([list(g) for g in found.groups], affinities) == pytest.approx(best, abs=1e-9)
    if value_of([[*range(len(affinities))]], affinities) > best - 1e-13:
        assert len(found.groups) == 1


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_bound_holds_for_every_partition(problem: tuple[np.ndarray, int]) -> None:
    affinities, _ = problem
    values = GroupValues(affinities)
    tasks = [*range(len(affinities))]
    best = max(value_of(partition, affinities) for partition in set_partitions(tasks))
    assert values.bound(tuple(tasks)) >= best - 1e-9


@settings(max_examples=60, deadline=None)
@given(problems())
def test_greedy_is_a_partition_that_no_move_betters(problem: tuple[np.ndarray, int]) -> None:
    affinities, networks = problem
    values = GroupValues(affinities)
    greedy = merge_and_move(values, networks)
    exact = branch_and_bound(values, networks)
    assert len(greedy) <= networks
    assert sorted(task for group in greedy for task in group) == [*range(len(affinities))]
    assert sum(map(values.of, greedy)) <= sum(map(values.of, exact)) + 1e-9
    for source in greedy:
        for task in source:
            for target in greedy:
                moved = [[*g] for g in greedy if g not in (source, target)]
                moved += [[t for t in source if t != task], [*target, task]]
                if target != source:
                    kept = [group for group in moved if group]
                    assert value_of(kept, affinities) <= sum(map(values.of, greedy)) + 1e-9


@pytest.mark.parametrize("count", [MOST_EXACT, MOST_EXACT + 8])
def test_planted_groups_are_found(count: int) -> None:
    rng = np.random.default_rng(0)
    planted = rng.permutation(np.arange(count) % 4)
    affinities = 0.3 * rng.random((count, count)) + 0.2 * rng.random((count, 1))
    affinities += 0.5 * (planted[:, None] == planted)
    found = find_partition(affinities, 4)
    assert found.is_exact == (count <= MOST_EXACT)
    assert len(found.groups) == 4
    assert all(len(set(planted[list(group)])) == 1 for group in found.groups)


def test_helpers_pair_up_and_enemies_part() -> None:
    apart = -np.ones((3, 3))
    assert find_partition(apart, 3).groups == [(0,), (1,), (2,)]
    assert find_partition(apart, 3).value == 0
    assert find_partition(apart, 1).groups == [(0, 1, 2)]
    assert find_partition(apart, 1).value == pytest.approx(-3)
    assert find_partition(np.zeros((4, 4)), 4).groups == [(0, 1, 2, 3)]
    # one direction may pay for the other
    one_way = np.array([[0.0, 3.0], [-1.0, 0.0]])
    assert find_partition(one_way, 2).value == pytest.approx(2)


def test_pairs_that_were_never_measured_are_refused() -> None:
    affinities = np.ones((3, 3))
    np.fill_diagonal(affinities, np.nan)
    assert find_partition(affinities, 2).groups == [(0, 1, 2)]
    affinities[0, 1] = np.nan
    with pytest.raises(ValueError, match="no measured batch had labels of both"):
        find_partition(affinities, 2)
