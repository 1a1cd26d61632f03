"""TIES: trim, elect, disjoint merge, against the definition by loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.analysis.merging.ties import average_agreeing, elect_signs, merge_vectors, trim
from tests.analysis.merging.networks import counts, flat, make_states, seeds


def reference(rows: np.ndarray, density: float) -> np.ndarray:
    """The merged task vector (P,) of task vectors (N, P), number by number."""
    trimmed = np.zeros_like(rows)
    for n, row in enumerate(rows):
        kept = max(1, round(density * len(row)))
        for place in np.argsort(-np.abs(row))[:kept]:
            trimmed[n, place] = row[place]
    sums = trimmed.sum(0)
    majority = np.sign(np.sign(sums).sum())
    merged = np.zeros(rows.shape[1])
    for place in range(rows.shape[1]):
        sign = np.sign(sums[place]) or majority
        agreeing = [x for x in trimmed[:, place] if x != 0 and np.sign(x) == sign]
        merged[place] = np.mean(agreeing) if agreeing else 0.0
    return merged


@given(seeds, counts, st.floats(0.01, 1.0))
def test_it_is_the_definition(seed: int, count: int, density: float) -> None:
    start, *states = make_states(seed, count + 1)
    merged = merge_vectors(states, start, density)
    rows = np.stack([flat(state) - flat(start) for state in states])
    np.testing.assert_allclose(flat(merged), reference(rows, density), rtol=1e-9, atol=1e-12)


def test_trimming_keeps_the_largest_share() -> None:
    row = torch.tensor([3.0, -5.0, 1.0, 0.5, -2.0])
    assert trim(row, 0.4).tolist() == [3, -5, 0, 0, 0]
    assert trim(row, 1.0).tolist() == row.tolist()
    # one number stays, however small the share
    assert trim(row, 0.001).tolist() == [0, -5, 0, 0, 0]


def test_the_sign_with_more_mass_is_elected_and_others_do_not_count() -> None:
    rows = torch.tensor([[3.0, 1.0, 2.0, 0.0], [-1.0, -4.0, 4.0, 0.0], [-1.0, 2.0, 0.0, 0.0]])
    signs = elect_signs(rows)
    # no number has a sign in the last place, where most have +
    assert signs.tolist() == [1, -1, 1, 1]
    assert average_agreeing(rows, signs).tolist() == [3, -4, 3, 0]


@given(seeds, counts)
def test_equal_networks_give_their_own_task_vector(seed: int, count: int) -> None:
    start, state = make_states(seed, 2)
    merged = merge_vectors([state] * count, start, 1.0)
    for name, tensor in merged.items():
        torch.testing.assert_close(start[name] + tensor, state[name], rtol=1e-12, atol=1e-14)


@given(seeds, counts, st.floats(0.1, 1.0))
def test_the_order_of_runs_does_not_count(seed: int, count: int, density: float) -> None:
    start, *states = make_states(seed, count + 1)
    merged = merge_vectors(states, start, density)
    other = merge_vectors(states[::-1], start, density)
    assert flat(merged) == pytest.approx(flat(other), rel=1e-9, abs=1e-12)
