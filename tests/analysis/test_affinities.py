"""Means and intervals of affinities are those of scipy, over blocks of steps or over seeds."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from src.analysis.affinities import (
    AffinityRecord,
    average_samples,
    average_steps,
    read_affinities,
    read_mean,
)
from src.files.typed import to_json


def test_the_interval_of_a_training_is_that_of_its_blocks() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 3, 3))
    found = average_steps(values)
    np.testing.assert_allclose(found.mean_TT, values.mean(0), rtol=1e-12)
    blocks = values.reshape(10, 4, 3, 3).mean(1)
    low, high = stats.t.interval(0.95, 9, loc=blocks.mean(0), scale=stats.sem(blocks))
    np.testing.assert_allclose(found.mean_TT - found.half_TT, low, rtol=1e-10)
    np.testing.assert_allclose(found.mean_TT + found.half_TT, high, rtol=1e-10)

    # a trend along the training widens it
    trend = average_steps(values + np.linspace(0, 10, 40)[:, None, None])
    assert (trend.half_TT > 3 * found.half_TT).all()


def test_the_interval_of_seeds_is_that_of_their_means() -> None:
    samples = [np.full((2, 2), value) for value in (1.0, 2.0, 4.0)]
    found = average_samples(samples)
    half = stats.t.ppf(0.975, 2) * np.std([1, 2, 4], ddof=1) / 3**0.5
    np.testing.assert_allclose(found.mean_TT, 7 / 3)
    np.testing.assert_allclose(found.half_TT, half)


def test_pairs_that_are_not_measured_stay_unknown() -> None:
    values = np.ones((6, 2, 2))
    values[:, 0, 1] = np.nan
    values[1:, 1, 0] = np.nan
    found = average_steps(values)
    assert np.isnan(found.mean_TT[0, 1])
    # known at one step alone: a mean without an interval
    assert found.mean_TT[1, 0] == 1
    assert np.isnan(found.half_TT[1, 0])
    assert found.half_TT[0, 0] == 0
    assert np.isnan(average_steps(values[:1]).half_TT).all()


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    found = average_steps(np.array([[[1.0, np.nan], [0.5, 2.0]]] * 2))
    record: AffinityRecord = {
        "tasks": ["a", "b"],
        "reads": "row helps column",
        "intervals": "",
        "runs": [],
        "seeds": [0],
        "measured_steps": [2],
        "lookahead": found.record(),
        "first_order": found.record(),
        "partition": None,
    }
    path = tmp_path / "affinity.json"
    path.write_bytes(to_json(record))
    read = read_affinities(path)
    np.testing.assert_equal(read_mean(read["lookahead"]), [[1.0, np.nan], [0.5, 2.0]])
    path.write_text('{"tasks": 1}')
    with pytest.raises(ValueError, match="is damaged"):
        read_affinities(path)
