"""Planted columns are found, one task's beside the other's, and noise is left out."""

from functools import partial

import pytest

from src.models.feature_selection import GroupLasso, StochasticGates
from src.models.sharing import HardSharing, Separate
from tests.models.feature_selection.planted import TRUE, Planted, find_columns

GATES = (partial(StochasticGates, strength=0.03), HardSharing)
LASSO = (partial(GroupLasso, strength=0.02, per="task"), Separate)
pytestmark = pytest.mark.filterwarnings("ignore")


def test_each_task_finds_its_own_columns():
    assert find_columns(Planted(0, rows=1000), *GATES) == TRUE


@pytest.mark.slow
@pytest.mark.parametrize("way", [GATES, LASSO], ids=["gates", "group lasso"])
def test_five_seeds_find_all_columns_and_few_others(way):
    true = others = 0
    for seed in range(5):
        for task, found in find_columns(Planted(seed), *way).items():
            true += len(found & TRUE[task])
            others += len(found - TRUE[task])
    assert true == 5 * 6
    # the false discovery rate, decoys included
    assert others / (true + others) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("way", [GATES, LASSO], ids=["gates", "group lasso"])
def test_labels_that_are_noise_open_few_columns(way):
    found = [
        len(columns)
        for seed in range(5)
        for columns in find_columns(Planted(seed, noise=True), *way).values()
    ]
    # of 5 seeds x 2 tasks x 20 columns
    assert sum(found) <= 0.05 * 200
