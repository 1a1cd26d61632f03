"""Distances between splits, against scipy, and how often chance is taken for shift."""

import numpy as np
import pytest

from src.data.audit.distances import measure_classes, measure_numbers


def test_numbers_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=300), rng.normal(0.4, 2, size=80).round(1)
    distance, limit = measure_numbers(x, y)
    assert distance == pytest.approx(stats.ks_2samp(x, y).statistic, abs=1e-12)
    assert 0 < limit < 1


def test_classes_by_hand():
    distance, _ = measure_classes(np.array([0, 0, 1, 1]), np.array([0, 2, 2, 2]))
    assert distance == pytest.approx(0.75)
    assert measure_classes(np.array([0]), np.zeros(0, dtype=int)) == (0.0, 1.0)


@pytest.mark.parametrize("size", [20, 300, 4000])
def test_chance_stays_below_its_limit(size):
    rng = np.random.default_rng(size)
    for _ in range(100):
        x, y = rng.normal(size=size), rng.normal(size=size // 2)
        distance, limit = measure_numbers(x, y)
        assert distance < limit
        codes = rng.integers(0, 40, size), rng.integers(0, 40, size // 2)
        distance, limit = measure_classes(*codes)
        assert distance < limit


def test_shift_is_above_it():
    rng = np.random.default_rng(1)
    distance, limit = measure_numbers(rng.normal(size=500), rng.normal(1, 1, size=200))
    assert distance > limit
    distance, limit = measure_classes(rng.integers(0, 4, 500), rng.integers(0, 3, 200))
    assert distance > limit
