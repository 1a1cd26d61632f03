"""CKA against its definition in float64, and what must not change it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.analysis.explanations.similarity import (
    compute_cka,
    compute_debiased_cka,
    tabulate_cka,
)


def draw(seed, rows, columns):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, columns)))


def reference_cka(x, y):
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with centring matrices (Kornblith et al.)."""
    n = len(x)
    H = np.eye(n) - np.ones((n, n)) / n
    K, L = x @ x.T, y @ y.T

    def hsic(a, b):
        return np.trace(a @ H @ b @ H) / (n - 1) ** 2

    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def reference_debiased(x, y):
    """Song et al.'s estimate with all matrices written out."""
    n = len(x)
    one = np.ones(n)

    def hsic(x, y):
        K, L = x @ x.T, y @ y.T
        np.fill_diagonal(K, 0)
        np.fill_diagonal(L, 0)
        middle = one @ K @ one * (one @ L @ one) / ((n - 1) * (n - 2))
        return (np.trace(K @ L) + middle - 2 / (n - 2) * one @ K @ L @ one) / (n * (n - 3))

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6), rows=st.integers(5, 30), c=st.integers(1, 6), d=st.integers(1, 6)
)
def test_cka_is_its_definition(seed, rows, c, d):
    x, y = draw(seed, rows, c) + 3, draw(seed + 1, rows, d)
    y[:, 0] += x[:, 0]
    expected = reference_cka(x.numpy(), y.numpy())
    assert compute_cka(x, y) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    expected = reference_debiased(x.numpy(), y.numpy())
    if np.isfinite(expected):
        assert compute_debiased_cka(x, y) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), shift=st.floats(-5, 5))
def test_rotations_scales_and_shifts_change_nothing(seed, scale, shift):
    x, y = draw(seed, 20, 4), draw(seed + 1, 20, 3)
    y += x[:, :3]
    rotation, _ = torch.linalg.qr(draw(seed + 2, 4, 4))
    for compute in (compute_cka, compute_debiased_cka):
        value = compute(x, y)
        assert compute(scale * x @ rotation + shift, y) == pytest.approx(value, rel=1e-8, abs=1e-10)
        assert compute(y, x) == pytest.approx(value, rel=1e-10)
    assert compute_cka(x, scale * x @ rotation) == pytest.approx(1, abs=1e-10)
    assert 0 <= compute_cka(x, y) <= 1


def test_few_rows_make_unrelated_features_look_alike_but_for_the_debiased_estimate():
    x, y = draw(0, 100, 200), draw(1, 100, 200)
    assert compute_cka(x, y) > 0.5
    assert abs(compute_debiased_cka(x, y)) < 0.05


def test_constant_features_and_few_rows_have_none():
    assert np.isnan(compute_cka(torch.ones(5, 2), draw(0, 5, 2)))
    assert np.isnan(compute_debiased_cka(draw(0, 3, 2), draw(1, 3, 2)))


def test_the_table_is_symmetric_with_ones():
    one = draw(0, 30, 3)
    features = {"a": one, "b": draw(1, 30, 4), "c": one}
    table = tabulate_cka(features, debiased=True)
    assert (table.to_numpy() == table.to_numpy().T).all()
    assert table.loc["a", "c"] == 1
    assert table.loc["a", "a"] == pytest.approx(1)
    assert abs(table.loc["a", "b"]) < 0.3
