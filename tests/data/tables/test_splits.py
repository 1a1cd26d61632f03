import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.tables.numbers import BadValue
from src.data.tables.splits import (
    BLOCK,
    keep_rare_classes,
    pick_evenly,
    split_at_random,
    split_by_column,
    split_by_groups,
    split_by_strata,
)

SHARES = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45))


def counts(side):
    return {name: int((side == name).sum()) for name in ("train", "val", "test")}


@settings(deadline=None)
@given(count=st.integers(0, 200), share=st.floats(0, 1), offset=st.floats(0, 0.999))
def test_systematic_picks_the_share_evenly(count, share, offset):
    picked = pick_evenly(count, share, offset)
    assert len(picked) == count
    for begin in range(0, count, 7):  # in every window, not only in all
        assert abs(picked[begin:].sum() - share * (count - begin)) <= 1 + 1e-9


# -- at random -------------------------------------------------------------------------------------
@settings(deadline=None)
@given(rows=st.integers(1, 300), shares=SHARES, seed=st.integers(0, 99))
def test_random_split_keeps_the_shares_in_each_block_and_in_all(rows, shares, seed):
    val, test = shares
    side = split_at_random(rows, val, test, seed)
    assert len(side) == rows
    assert set(side) <= {"train", "val", "test"}
    whole = rows // BLOCK * BLOCK
    for end in range(BLOCK, whole + 1, BLOCK):
        block, so_far = counts(side[end - BLOCK : end]), counts(side[:end])
        # shares that are no whole rows of a block add up over the blocks
        assert abs(so_far["test"] - test * end) <= 0.5 + 1e-6
        assert abs(so_far["val"] - val * end) <= 1 + 1e-6
        assert abs(block["test"] - test * BLOCK) <= 1 + 1e-6
        assert abs(block["val"] - val * BLOCK) <= 2 + 1e-6


def test_a_small_share_does_not_grow_by_rounding():
    """Of 1,000 rows 5 validate; rounded by themselves they would be several times as many."""
    side = split_at_random(1000, 0.005, 0.13, 0)
    assert counts(side) == {"train": 865, "val": 5, "test": 130}


@pytest.mark.parametrize("rows", [20, 200, 1000])
def test_whole_shares_are_exact_in_each_block(rows):
    side = split_at_random(rows, 0.15, 0.15, 3)
    for begin in range(0, rows, BLOCK):
        assert counts(side[begin : begin + BLOCK]) == {"train": 14, "val": 3, "test": 3}


@settings(deadline=None)
@given(
    rows=st.integers(BLOCK, 300),
    more=st.integers(0, 300),
    shares=SHARES,
    seed=st.integers(0, 2**31),
)
def test_rows_that_are_appended_leave_the_others_where_they_are(rows, more, shares, seed):
    before, after = (split_at_random(count, *shares, seed) for count in (rows, rows + more))
    assert (after[:rows] == before).all()


def test_random_split_is_a_function_of_its_seed():
    first = split_at_random(100, 0.2, 0.2, 3)
    assert (first == split_at_random(100, 0.2, 0.2, 3)).all()
    assert (first != split_at_random(100, 0.2, 0.2, 4)).any()
    assert counts(first) == {"train": 60, "val": 20, "test": 20}
    assert (
        split_at_random(4000, 0.2, 0.2, 3) != split_at_random(4000, 0.2, 0.2, 4)
    ).mean() > 0.25  # 0.56 by chance


def test_no_place_in_a_block_is_preferred():
    side = np.stack([split_at_random(2000, 0.15, 0.15, seed) for seed in range(20)])
    tested = (side == "test").reshape(-1, BLOCK).mean(0)
    assert abs(tested - 0.15).max() < 5 * (0.15 * 0.85 / 2000) ** 0.5
    # neither is a row of the next block on the side of this one's more often
    same = (side[:, :-BLOCK] == side[:, BLOCK:]).mean()
    assert same == pytest.approx(0.7**2 + 2 * 0.15**2, abs=0.01)


# -- in proportion ---------------------------------------------------------------------------------
@settings(deadline=None)
@given(rows=st.integers(1, 300), shares=SHARES, seed=st.integers(0, 99), strata=st.integers(1, 5))
def test_stratified_split_keeps_proportions_in_all_and_in_each_stratum(rows, shares, seed, strata):
    val, test = shares
    labels = np.random.default_rng(seed).integers(strata, size=rows)
    side = split_by_strata(labels, val, test, seed)
    assert abs((side == "test").sum() - test * rows) <= 1 + 1e-6
    assert abs((side == "val").sum() - val * rows) <= 2 + 1e-6
    for label in range(strata):
        mine = side[labels == label]
        assert abs((mine == "test").sum() - test * len(mine)) <= 1 + 1e-6
        assert abs((mine == "val").sum() - val * len(mine)) <= 2 + 1e-6
    assert set(side) <= {"train", "val", "test"}
    assert (side == split_by_strata(labels, val, test, seed)).all()


# -- by group --------------------------------------------------------------------------------------
@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    shares=SHARES,
    seed=st.integers(0, 99),
)
def test_no_group_is_on_two_sides_and_the_shares_are_near(sizes, shares, seed):
    val, test = shares
    groups = np.random.default_rng(seed).permutation(
        np.repeat([f"g{i}" for i in range(len(sizes))], sizes)
    )
    side = split_by_groups(groups, val, test, seed)
    assert all(len(set(side[groups == group])) == 1 for group in set(groups))
    assert abs((side == "test").sum() - test * len(groups)) <= max(sizes) + 1e-6
    assert abs((side == "val").sum() - val * len(groups)) <= 2 * max(sizes) + 1e-6
    if len(sizes) >= 3 and "train" in side:
        assert ("test" in side) >= (test > 0)
    assert (side == split_by_groups(groups, val, test, seed)).all()


@settings(deadline=None)
@given(seed=st.integers(0, 99))
def test_the_side_of_a_group_does_not_depend_on_the_order_of_rows(seed):
    groups = np.repeat(np.array([f"g{i}" for i in range(30)], dtype=object), 4)
    order = np.random.default_rng(seed).permutation(len(groups))
    assert (
        split_by_groups(groups[order], 0.2, 0.2, seed)
        == split_by_groups(groups, 0.2, 0.2, seed)[order]
    ).all()


@pytest.mark.parametrize("sizes", [[100, 100, 100], [75] * 4, [250, 30, 20], [5, 5, 290], [60] * 5])
@pytest.mark.parametrize("seed", range(5))
def test_few_groups_leave_no_side_without_one(sizes, seed):
    groups = np.repeat([f"g{i}" for i in range(len(sizes))], sizes)
    side = split_by_groups(groups, 0.15, 0.15, seed)
    assert set(side) == {"train", "val", "test"}


# -- by a column -----------------------------------------------------------------------------------
def test_column_split_knows_the_usual_words():
    values = ["train", " Training ", "VAL", "valid", "validation", "dev", "test"]
    assert split_by_column(values).tolist() == [
        "train",
        "train",
        "val",
        "val",
        "val",
        "val",
        "test",
    ]


@pytest.mark.parametrize("value", ["tset", None, float("nan"), 1])
def test_column_split_refuses_other_words_and_names_the_row(value):
    with pytest.raises(BadValue, match=f"holds '{value}' where train, val or test") as error:
        split_by_column(["train", value])
    assert error.value.row == 1


# -- rare classes ----------------------------------------------------------------------------------
@settings(deadline=None)
@given(
    rows=st.integers(1, 80), tasks=st.integers(1, 3), seed=st.integers(0, 99), grouped=st.booleans()
)
def test_every_class_has_a_training_row(rows, tasks, seed, grouped):
    rng = np.random.default_rng(seed)
    labels = [rng.integers(-1, 12, size=rows) for _ in range(tasks)]
    groups = rng.integers(6, size=rows).astype(str).astype(object) if grouped else None
    before = (
        rng.choice(["train", "val", "test"], rows)
        if groups is None
        else split_by_groups(groups, 0.3, 0.3, seed)
    )
    side = before.astype("<U5").copy()
    moved = keep_rare_classes(side, labels, groups)
    for codes in labels:
        assert set(codes[codes >= 0]) == set(codes[(codes >= 0) & (side == "train")])
    assert (moved == (side != before)).all()
    assert set(side[moved]) <= {"train"}
    if groups is not None:
        assert all(len(set(side[groups == group])) == 1 for group in set(groups))


def test_rows_of_common_classes_stay():
    side = np.array(["train", "val", "test", "test", "val", "train"])
    moved = keep_rare_classes(side, [np.array([0, 0, 0, 1, -1, 0])])
    assert moved.tolist() == [False, False, False, True, False, False]
    assert side.tolist() == ["train", "val", "test", "train", "val", "train"]
