import os
from pathlib import Path

import numpy as np
import pytest

from src.data import Tox21
from src.data.molecules.tox21 import ASSAYS
from tests.data.molecules.made_molecules import write_tox21

REAL = Path(os.environ.get("MTL_DATA", "nowhere")) / "tox21"


@pytest.fixture
def root(tmp_path):
    return write_tox21(tmp_path)


def test_the_published_split(root):
    """Molecules that cannot be read have a place in the permutation."""
    data = Tox21(root, bits=16, split_seed=3)
    order = np.random.RandomState(3).permutation(100)
    sides = {"train": order[:80], "val": order[80:90], "test": order[90:]}
    for name, rows in sides.items():
        expected = {f"TOX{row}" for row in rows} - {"TOX10", "TOX50"}
        assert set(data.split(name).row_info["id"]) == expected
    assert list(data.tasks) == ASSAYS
    assert any("left out 2 of 100 rows" in note for note in data.notes())


def test_the_runs_seed_may_split(root):
    def tested(**settings):
        return Tox21(root, bits=16, **settings).rows["test"].tolist()

    assert tested(split_seed=None, seed=3) == tested(split_seed=3, seed=0)
    assert tested(split_seed=None, seed=3) != tested(split_seed=None, seed=4)
    assert tested(seed=3) == tested(seed=4)


def test_other_splits_and_some_assays(root):
    data = Tox21(root, bits=16, split="scaffold", targets=["SR-p53", "NR-AR"])
    assert list(data.tasks) == ["SR-p53", "NR-AR"]
    assert sum(len(rows) for rows in data.rows.values()) == 98
    data = Tox21(root, bits=16, folds=4, fold=1)
    assert 20 < len(data.rows["test"]) < 30


def test_a_folder_without_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"tox21.csv.gz is there; get them from https://github"):
        Tox21(str(tmp_path))


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="MTL_DATA names no folder with tox21")
def test_the_real_file():
    data = Tox21(str(REAL), bits=1024)
    assert [len(data.rows[name]) for name in ("train", "val", "test")] == [6257, 782, 784]
    missing = np.mean([data.encode_targets_of("train", name).isnan() for name in ASSAYS])
    assert missing == pytest.approx(0.1705, abs=5e-4)
    positive = [data.encode_targets_of("train", name).nanmean().item() for name in ASSAYS]
    assert min(positive) == pytest.approx(0.029, abs=1e-3)
    assert max(positive) == pytest.approx(0.162, abs=1e-3)
