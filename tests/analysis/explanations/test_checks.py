"""Completeness and deletion curves on models whose answers are known."""

import numpy as np
import pytest
import torch

from src.analysis.explanations.checks import (
    find_area,
    measure_completeness,
    measure_deletion,
    rank_features,
)


def test_completeness_is_a_share_of_the_mean_difference():
    attributions = torch.tensor([[1.0, 2.0], [0.5, 0.0]])
    found = measure_completeness(attributions, torch.tensor([4.0, 1.0]), torch.tensor([0.0, 1.0]))
    # gaps 1 and 0.5, differences 4 and 0
    assert found.mean == pytest.approx(0.75 / 2)
    assert found.largest == pytest.approx(1 / 2)
    assert found.difference == pytest.approx(2)


def test_a_network_that_reads_nothing_has_no_gap():
    found = measure_completeness(torch.zeros(3, 2), torch.ones(3), torch.ones(3))
    assert (found.mean, found.largest, found.difference) == (0, 0, 0)


def test_ranks_put_the_largest_first_and_padding_last():
    importance = torch.tensor([[0.1, 0.9, 0.5], [0.0, 0.0, 9.0]])
    real = torch.tensor([[True, True, True], [True, True, False]])
    assert rank_features(importance, real).tolist() == [[2, 0, 1], [0, 1, 2]]


def test_deletion_of_the_one_feature_that_counts():
    """The score is the share of rows that keep feature 2: it falls at once, or on average late."""
    rows, features = 400, 5
    importance = torch.zeros(rows, features)
    importance[:, 2] = 1
    real = torch.ones(rows, features, dtype=torch.bool)
    samples = [np.random.default_rng(k).integers(0, rows, rows) for k in range(10)]
    found = measure_deletion(
        importance,
        real,
        lambda positions: positions[:, 2],
        lambda outputs, sample: float(outputs[torch.from_numpy(sample)].mean()),
        samples,
        seed=0,
    )
    assert found.shares == pytest.approx((0, 0.2, 0.4, 0.6, 0.8, 1))
    assert found.attributed == (1, 0, 0, 0, 0, 0)
    assert found.random == pytest.approx((1, 0.8, 0.6, 0.4, 0.2, 0), abs=0.05)
    # the random curve is a line; the other has the area of one step
    assert found.area == pytest.approx(0.5 - 0.1, abs=0.03)
    assert found.low < found.area < found.high
    assert found.high - found.low < 0.1


def test_random_attributions_have_no_area():
    rows, features = 400, 5
    draw = torch.Generator().manual_seed(0)
    found = measure_deletion(
        torch.rand(rows, features, generator=draw),
        torch.ones(rows, features, dtype=torch.bool),
        lambda positions: positions[:, 2],
        lambda outputs, sample: float(outputs[torch.from_numpy(sample)].mean()),
        [np.random.default_rng(k).integers(0, rows, rows) for k in range(20)],
        seed=0,
    )
    assert abs(found.area) < 0.05
    assert found.low < 0.02
    assert found.high > -0.02


def test_rows_of_fewer_features_lose_a_share_of_their_own():
    real = torch.tensor([[True, True, True, True], [True, True, False, False]])
    seen = []

    def run(positions):
        seen.append((1 - positions).sum(1).tolist())
        return positions[:, 0]

    score = lambda outputs, sample: float(outputs.mean())  # noqa: E731
    measure_deletion(torch.rand(2, 4), real, run, score, [np.array([0, 1])] * 2, seed=0)
    assert seen[:5] == [[0, 0], [1, 0], [2, 1], [3, 2], [4, 2]]


def test_area_of_two_lines():
    assert find_area([0, 0.5, 1], np.zeros(3), np.array([0, 1, 0])) == pytest.approx(0.5)
