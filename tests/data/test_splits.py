import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.splits import column_split, group_split, joint_strata, random_split, systematic

SHARES = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45))


@settings(deadline=None)
@given(count=st.integers(0, 200), share=st.floats(0, 1), offset=st.floats(0, 0.999))
def test_systematic_picks_the_share_evenly(count, share, offset):
    picked = systematic(count, share, offset)
    assert len(picked) == count
    for begin in range(0, count, 7):  # in every window, not only in all
        assert abs(picked[begin:].sum() - share * (count - begin)) <= 1 + 1e-9


@settings(deadline=None)
@given(rows=st.integers(1, 300), shares=SHARES, seed=st.integers(0, 99), strata=st.integers(1, 5))
def test_random_split_keeps_proportions_in_all_and_in_each_stratum(rows, shares, seed, strata):
    val, test = shares
    labels = np.random.default_rng(seed).integers(strata, size=rows)
    split = random_split(rows, val, test, seed, labels)
    assert abs((split == "test").sum() - test * rows) <= 1 + 1e-6
    assert abs((split == "val").sum() - val * rows) <= 2 + 1e-6
    for label in range(strata):
        mine = split[labels == label]
        assert abs((mine == "test").sum() - test * len(mine)) <= 1 + 1e-6
        assert abs((mine == "val").sum() - val * len(mine)) <= 2 + 1e-6
    assert set(split) <= {"train", "val", "test"}


def test_random_split_is_a_function_of_its_seed():
    first = random_split(100, 0.2, 0.2, 3)
    assert (first == random_split(100, 0.2, 0.2, 3)).all()
    assert (first != random_split(100, 0.2, 0.2, 4)).any()
    assert {name: int((first == name).sum()) for name in ("train", "val", "test")} == {"train": 60, "val": 20, "test": 20}


@settings(deadline=None)
@given(rows=st.integers(1, 100), seed=st.integers(0, 99))
def test_rows_to_keep_always_train(rows, seed):
    keep = np.random.default_rng(seed).random(rows) < 0.2
    split = random_split(rows, 0.3, 0.3, seed, None, keep)
    assert set(split[keep]) <= {"train"}
    assert abs((split == "test").sum() - 0.3 * (~keep).sum()) <= 1 + 1e-6


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=40), shares=SHARES, seed=st.integers(0, 99))
def test_no_group_is_on_two_sides_and_the_shares_are_near(sizes, shares, seed):
    val, test = shares
    groups = np.random.default_rng(seed).permutation(np.repeat([f"g{i}" for i in range(len(sizes))], sizes))
    split = group_split(groups, val, test, seed)
    assert all(len(set(split[groups == group])) == 1 for group in set(groups))
    assert abs((split == "test").sum() - test * len(groups)) <= max(sizes) / 2 + 1e-6
    assert abs((split == "val").sum() - val * len(groups)) <= max(sizes) + 1e-6
    assert (split == group_split(groups, val, test, seed)).all()


def test_column_split_knows_the_usual_words():
    values = ["train", " Training ", "VAL", "valid", "validation", "dev", "test"]
    assert column_split(values).tolist() == ["train", "train", "val", "val", "val", "val", "test"]


@pytest.mark.parametrize("value", ["tset", None, float("nan"), 1])
def test_column_split_refuses_other_words_and_names_the_row(value):
    with pytest.raises(ValueError, match=f"row 2 holds '{value}' where train, val or test"):
        column_split(["train", value])


def test_joint_strata():
    a, b, c = np.array(list("xxyy")), np.array(list("stst")), np.array(list("0123"))
    assert joint_strata([a, b], 4).tolist() == [0, 1, 2, 3]
    assert joint_strata([a, b], 3).tolist() == [0, 0, 1, 1]  # b would make four
    assert joint_strata([c, a], 3).tolist() == [0, 0, 1, 1]  # c alone makes four
    assert joint_strata([c], 3) is None
    assert joint_strata([], 3) is None
