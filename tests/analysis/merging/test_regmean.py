"""RegMean against least squares."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.analysis.merging.average import average
from src.analysis.merging.regmean import compute_gram, merge_by_regression
from tests.analysis.merging.networks import counts, make_states, seeds, to_arrays

WEIGHT = "layer.weight"


def make_inputs(seed: int, count: int, rows: int = 30) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rows, 4)) @ rng.normal(size=(4, 4)) for _ in range(count)]


def make_grams(inputs: list[np.ndarray]) -> list[dict[str, torch.Tensor]]:
    return [{WEIGHT: compute_gram(torch.from_numpy(x))} for x in inputs]


@given(seeds, counts)
def test_it_is_the_least_squares_solution(seed: int, count: int) -> None:
    states = make_states(seed, count)
    inputs = make_inputs(seed, count)
    merged = merge_by_regression(states, make_grams(inputs), alpha=1.0)
    outputs = [x @ state[WEIGHT].numpy().T for x, state in zip(inputs, states, strict=True)]
    wanted = np.linalg.lstsq(np.concatenate(inputs), np.concatenate(outputs), rcond=None)[0]
    np.testing.assert_allclose(merged[WEIGHT].numpy().T, wanted, rtol=1e-4, atol=1e-5)
    mean = average(states)
    for name in ("layer.bias", "norm.weight"):
        assert merged[name].equal(mean[name])


@given(seeds, counts, st.floats(0, 0.99))
def test_elements_off_the_diagonal_are_shrunk(seed: int, count: int, alpha: float) -> None:
    states = make_states(seed, count)
    inputs = make_inputs(seed, count)
    merged = merge_by_regression(states, make_grams(inputs), alpha)
    grams = []
    for x in inputs:
        gram = x.T @ x
        grams.append(np.where(np.eye(4) == 1, gram, alpha * gram))
    right = sum(
        gram @ weight.T for gram, weight in zip(grams, to_arrays(states, WEIGHT), strict=True)
    )
    wanted = np.linalg.solve(sum(grams), right)
    np.testing.assert_allclose(merged[WEIGHT].numpy().T, wanted, rtol=1e-6, atol=1e-7)


@given(seeds, counts, st.floats(0, 1))
def test_equal_networks_stay_as_they_are_to_the_bit(seed: int, count: int, alpha: float) -> None:
    state = make_states(seed, 1, torch.float32)[0]
    grams = make_grams(make_inputs(seed, count, rows=2))
    merged = merge_by_regression([state] * count, grams, alpha)
    assert all(merged[name].equal(state[name]) for name in state)


def test_what_no_input_has_stays_with_the_first_run() -> None:
    one, two = make_states(0, 2)
    x = np.random.default_rng(0).normal(size=(9, 4))
    x[:, 2] = 0
    merged = merge_by_regression([one, two], make_grams([x, x]), 1.0)[WEIGHT]
    mean = (one[WEIGHT] + two[WEIGHT]) / 2
    torch.testing.assert_close(merged[:, [0, 1, 3]], mean[:, [0, 1, 3]])
    torch.testing.assert_close(merged[:, 2], one[WEIGHT][:, 2])


def test_a_gram_matrix_sums_over_all_places() -> None:
    x = torch.randn(2, 5, 3)
    torch.testing.assert_close(compute_gram(x), torch.einsum("bsi,bsj->ij", x, x).double())
