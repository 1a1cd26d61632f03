"""Shift of rows against the training rows, in known distances."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from src.deployment.serving.monitor import ReferenceRows, ShiftMonitor, measure_shift
from src.deployment.serving.service import Columns
from src.models.feature_selection import InputColumn
from tests import launching


@given(st.floats(-5, 5), st.floats(0.1, 10))
def test_numbers_that_have_moved_are_as_far_as_they_moved(move: float, scale: float):
    x = torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale
    spread = float(x.std(correction=0))
    assert measure_shift(x, x + move * spread) == pytest.approx(abs(move), abs=1e-9)


def test_the_distance_of_numbers_is_near_that_of_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    y = rng.gamma(2.0, size=3000)
    expected = wasserstein_distance(x, y) / x.std()
    found = measure_shift(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(expected, rel=0.03)


def test_words_are_compared_by_their_shares():
    ours = torch.tensor([0, 0, 1, 1])
    assert measure_shift(ours, ours) == 0
    assert measure_shift(ours, torch.tensor([0, 1, 2, 2])) == pytest.approx(0.5)
    assert measure_shift(ours, torch.tensor([5])) == 1


def test_a_window_is_compared_and_forgotten(tmp_path: Path):
    generator = torch.Generator().manual_seed(1)

    def make(rows: int, move: float) -> dict[str, torch.Tensor]:
        dense = torch.randn(rows, 2, generator=generator) + torch.tensor([move, 0.0])
        return {"dense": dense, "categorical": torch.randint(2, (rows, 1), generator=generator)}

    columns = [InputColumn("age", dense=(0, 1)), InputColumn("job", categories=(0,))]
    known: Columns = {"grade": ["a", "b"] * 500, "p": [0.5, 0.7] * 500, "maps": [[1]] * 1000}
    monitor = ShiftMonitor(columns, ReferenceRows(make(1000, 0), known), 200, tmp_path)
    for move in (0.0, 3.0):
        for _ in range(4):
            monitor.add(make(50, move), {"grade": ["b"] * 50, "p": [0.9] * 50, "maps": [[1]] * 50})
    monitor.add(make(7, 0), {"grade": ["c"] * 7, "p": [0.5] * 7, "maps": [[1]] * 7})
    monitor.close()

    curves = launching.curves(tmp_path)
    assert list(curves["input_shift/age"]) == [200, 400, 407]
    assert curves["input_shift/age"][200] < 0.25
    assert curves["input_shift/age"][400] == pytest.approx(3, abs=0.25)
    assert curves["input_shift/job"][400] < 0.15
    assert curves["input_shift_by_chance/age"][400] < 0.25
    assert curves["prediction_shift/grade"][200] == pytest.approx(0.5)
    assert curves["prediction_shift/grade"][407] == 1
    assert curves["prediction_shift/p"][200] == pytest.approx(0.3 / 0.1, rel=1e-6)
    assert not any("maps" in tag for tag in curves)
