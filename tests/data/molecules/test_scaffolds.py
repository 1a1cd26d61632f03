import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.molecules.scaffolds import find_scaffolds, split_by_scaffold


def test_scaffolds():
    smiles = ["Cc1ccccc1", "CCc1ccccc1O", "C1CCCCC1CN", "CCO", "c1ccccc1CCc1ccccc1C"]
    assert find_scaffolds(pd.Series(smiles)).tolist() == [
        "c1ccccc1",
        "c1ccccc1",
        "C1CCCCC1",
        "",
        "c1ccc(CCc2ccccc2)cc1",
    ]


def test_the_published_order():
    """As deepchem's ScaffoldSplitter: the largest first, of equals the later one."""
    names = np.array([*"aaaaaa", *"bb", "c", "d"], dtype=object)
    side = split_by_scaffold(names, 0.2, 0.1)
    assert "".join(s[0] for s in side) == "tttttt" + "vv" + "t" + "t"
    assert side.tolist() == ["train"] * 6 + ["val"] * 2 + ["test"] + ["train"]


@settings(deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.sampled_from([0.0, 0.1, 0.25]))
def test_no_scaffold_is_on_two_sides(codes, share):
    names = np.array([f"s{code}" for code in codes], dtype=object)
    side = split_by_scaffold(names, share, share)
    for name in set(names):
        assert len(set(side[names == name])) == 1
    count = len(codes)
    assert (side == "train").sum() <= (1 - 2 * share) * count + 1e-6
    if not share:
        assert (side == "train").all()
