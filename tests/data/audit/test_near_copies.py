"""Near copies: found where a few rows have some noise, not where rows are merely dense."""

import numpy as np
import pytest
import torch

from src.data.audit.near_copies import find_near_copies, measure_nearest


def draw(dimensions, rows, seed=0, latent=None):
    rng = np.random.default_rng(seed)
    if latent is None:
        return torch.from_numpy(rng.normal(size=(rows, dimensions))).float()
    low = rng.normal(size=(rows, latent))
    wide = np.tanh(low @ np.random.default_rng(9).normal(size=(latent, dimensions)))
    return torch.from_numpy(wide).float()


def test_distances_agree_with_a_loop():
    train, check = draw(5, 50).double(), draw(5, 7, 1).double()
    found = measure_nearest(train, check, None)
    wanted = [((train - row) ** 2).mean(1).min().sqrt() for row in check]
    assert torch.allclose(found, torch.stack(wanted), atol=1e-9)


@pytest.mark.parametrize("dimensions", [6, 10, 60])
def test_rows_with_noise_are_found(dimensions):
    train, check = draw(dimensions, 3000), draw(dimensions, 400, 1)
    check[:12] = train[:12] + 0.005 * draw(dimensions, 12, 2)
    assert find_near_copies(train, check).tolist() == list(range(12))
    kinds = np.zeros(3000, dtype=int), np.ones(400, dtype=int)
    assert not len(find_near_copies(train, check, kinds))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("dimensions", "latent"), [(1, None), (2, None), (3, None), (20, 2)])
def test_dense_rows_are_none(dimensions, latent, seed):
    train = draw(dimensions, 5000, seed, latent)
    check = draw(dimensions, 800, 100 + seed, latent)
    assert not len(find_near_copies(train, check))


@pytest.mark.parametrize("rows", [60, 300, 1000, 4000])
@pytest.mark.parametrize("shape", ["normal", "lognormal", "uniform", "standard_cauchy"])
def test_one_column_of_any_shape_has_none(shape, rows):
    for seed in range(5):
        draws = getattr(np.random.default_rng(seed), shape)(size=(rows + rows // 4, 1))
        values = torch.from_numpy(draws).float()
        assert not len(find_near_copies(values[:rows], values[rows:]))


def test_whole_numbers_and_constants_are_none():
    rng = np.random.default_rng(0)
    train = torch.from_numpy(rng.integers(0, 30, (4000, 4))).float()
    check = torch.from_numpy(rng.integers(0, 30, (500, 4))).float()
    assert not len(find_near_copies(train, check))
    assert not len(find_near_copies(torch.ones(50, 3), torch.ones(9, 3)))
