"""Folds: of rows, of groups and of strata, and the tables and images that are cut by them."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data import Adult, Digits, Sources, Synthetic, Table
from src.data.folds import (
    check_fold,
    deal_at_random,
    deal_by_groups,
    deal_by_strata,
    split_by_fold,
)
from src.data.tables.splits import BLOCK
from src.errors import UserError

SIDES = ("train", "val", "test")


# -- the fold of each row --------------------------------------------------------------------------
@settings(deadline=None)
@given(folds=st.integers(2, 12), rows=st.integers(12, 200), more=st.integers(0, 50))
def test_random_folds_are_of_one_size_and_do_not_move_when_rows_are_appended(folds, rows, more):
    dealt = deal_at_random(rows, folds, 3)
    counts = np.bincount(dealt, minlength=folds)
    assert len(counts) == folds
    assert counts.max() - counts.min() <= 1
    assert (deal_at_random(rows + more, folds, 3)[:rows] == dealt).all()
    assert set(dealt[:folds]) == set(range(folds))


def test_random_folds_are_a_function_of_their_seed():
    first = deal_at_random(4000, 5, 0)
    other = deal_at_random(4000, 5, 1)
    # by chance a row is in one fold under both seeds once in five times
    assert (first == other).mean() == pytest.approx(0.2, abs=0.03)
    # and no place among five rows prefers a fold
    places = np.stack([deal_at_random(5, 5, seed) for seed in range(2000)])
    for fold in range(5):
        assert (places == fold).mean(0) == pytest.approx([0.2] * 5, abs=0.045)


@settings(deadline=None)
@given(folds=st.integers(2, 6), sizes=st.lists(st.integers(6, 30), min_size=1, max_size=6))
def test_stratified_folds_have_each_stratum_in_proportion_to_within_a_row(folds, sizes):
    strata = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    dealt = deal_by_strata(strata, folds, 1)
    counts = np.bincount(dealt, minlength=folds)
    assert counts.max() - counts.min() <= 1
    for stratum, size in enumerate(sizes):
        there = np.bincount(dealt[strata == stratum], minlength=folds)
        assert np.abs(there - size / folds).max() < 1


@settings(deadline=None)
@given(
    folds=st.integers(2, 5),
    sizes=st.lists(st.integers(1, 12), min_size=5, max_size=40),
    seed=st.integers(0, 99),
)
def test_folds_of_groups_cut_none_and_are_even_to_within_the_largest(folds, sizes, seed):
    names = np.array([f"g{i}" for i in range(len(sizes))], dtype=object)
    groups = np.random.default_rng(seed).permutation(np.repeat(names, sizes))
    dealt = deal_by_groups(groups, folds, seed)
    assert all(len(set(dealt[groups == name])) == 1 for name in names)
    counts = np.bincount(dealt, minlength=folds)
    assert counts.min() > 0
    assert counts.max() - counts.min() <= max(sizes)

    # the order of the rows does not count
    order = np.random.default_rng(seed + 1).permutation(len(groups))
    assert (deal_by_groups(groups[order], folds, seed) == dealt[order]).all()


# -- the split of one fold -------------------------------------------------------------------------
@settings(deadline=None)
@given(
    folds=st.integers(2, 6),
    rows=st.integers(60, 200),
    val=st.floats(0.05, 0.4),
    kind=st.sampled_from(["random", "strata", "groups"]),
)
def test_a_fold_tests_and_the_others_validate_and_train_in_proportion(folds, rows, val, kind):
    rng = np.random.default_rng(rows)
    strata = rng.integers(2, size=rows) if kind == "strata" else None
    groups = rng.integers(20, size=rows).astype(str).astype(object) if kind == "groups" else None
    if groups is not None:
        dealt = deal_by_groups(groups, folds, 0)
    elif strata is not None:
        dealt = deal_by_strata(strata, folds, 0)
    else:
        dealt = deal_at_random(rows, folds, 0)

    tested = np.zeros(rows, dtype=int)
    # at random, a share is kept in whole blocks of rows, and the last one need not be whole
    slack = {"random": BLOCK / 2, "strata": 2, "groups": 0}[kind]
    if groups is not None:
        slack = np.unique(groups, return_counts=True)[1].max() + 1
    for fold in range(folds):
        side = split_by_fold(dealt, fold, val, 0, groups, strata)
        assert ((side == "test") == (dealt == fold)).all()
        assert abs((side == "val").sum() - val * rows) <= slack
        tested += side == "test"
        if groups is not None:
            assert all(len(set(side[groups == group])) == 1 for group in set(groups))
    assert (tested == 1).all()


def test_each_fold_draws_its_validation_rows_anew():
    dealt = deal_at_random(2000, 5, 0)
    first, second = (split_by_fold(dealt, fold, 0.2, 0) == "val" for fold in (0, 1))
    among = (dealt != 0) & (dealt != 1)
    # each picks a quarter of the rows that are left to it
    assert (first & second)[among].mean() == pytest.approx(1 / 16, abs=0.02)


@pytest.mark.parametrize(
    ("folds", "fold", "says"),
    [
        (1, 0, "data.folds is 1; it must be at least 2"),
        (0, 0, "data.folds is 0"),
        (5, 5, "data.fold is 5; the 5 folds of data.folds count from 0 to 4"),
        (5, -1, "data.fold is -1"),
        (None, 2, "data.fold is 2, but data.folds says"),
    ],
)
def test_folds_that_cannot_be(folds, fold, says):
    with pytest.raises(UserError, match=says):
        check_fold(folds, fold)


# -- tables ----------------------------------------------------------------------------------------
def people(rows=120):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(20, 60, rows),
            "home": [f"h{i // 4}" for i in range(rows)],
            "side": "train",
            "grade": rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1]),
            "hours": rng.normal(size=rows),
        }
    )


@pytest.fixture
def path(tmp_path):
    people().to_csv(tmp_path / "people.csv", index=False)
    return str(tmp_path / "people.csv")


WAYS = {
    "random": {},
    "grouped": {"group": "home"},
    "stratified": {"stratify": ["grade"]},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_folds_of_a_table_test_every_row_once_whatever_it_predicts(path, way):
    settings = {**WAYS[way], "drop": ["side"], "folds": 5}
    tested = []
    for fold in range(5):
        table = Table(path, ["grade", "hours"], fold=fold, **settings)
        other = Table(path, ["hours"], inputs=["age"], fold=fold, **{**settings, "drop": []})
        for name in SIDES:
            assert table.rows[name].tolist() == other.rows[name].tolist()
        assert len(table.rows["val"]) == pytest.approx(18, abs=1 if way == "stratified" else 4)
        assert f"(fold {fold} of 0 to 4)" in "\n".join(table.notes())
        assert table.fingerprint()["fold"] == {"folds": 5, "fold": fold}
        tested += table.rows["test"].tolist()
        if way == "grouped":
            homes = people()["home"].to_numpy()
            sides = [set(homes[table.rows[name]]) for name in SIDES]
            assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sorted(tested) == list(range(120))


def test_a_run_of_a_fold_is_read_with_the_rows_that_it_had(path, tmp_path):
    table = Table(path, ["hours"], drop=["side"], folds=3, fold=1)
    (tmp_path / "schema.json").write_text(json.dumps(table.schema()))
    again = Table(
        path, ["hours"], drop=["side"], folds=3, fold=1, schema_path=str(tmp_path / "schema.json")
    )
    for name in SIDES:
        assert again.rows[name].tolist() == table.rows[name].tolist()
    assert again.fingerprint() == table.fingerprint()


def test_a_class_that_one_fold_alone_has_is_trained_there(tmp_path):
    frame = people().assign(grade=["z", *people()["grade"][1:]])
    frame.to_csv(tmp_path / "rare.csv", index=False)
    tables = [Table(str(tmp_path / "rare.csv"), ["grade"], folds=3, fold=fold) for fold in range(3)]
    assert all(0 in table.rows["train"] for table in tables)
    tested = np.concatenate([table.rows["test"] for table in tables])
    assert sorted(tested) == list(range(1, 120))
    said = ["rows moved to train" in "\n".join(table.notes()) for table in tables]
    assert sum(said) >= 1


REFUSALS = {
    "a column of sides": ({"split_column": "side"}, "data.folds and data.split_column cannot both"),
    "a test file": ({"test_path": "{path}"}, "data.test_path names the rows that test"),
    "no training rows": (
        {"val_fraction": 0.8, "folds": 5},
        "data.val_fraction 0.8 and a test fold of data.folds 5 leave no rows",
    ),
    "few groups": (
        {"group": "home", "folds": 31},
        r"people.csv: data.folds is 31, but data.group has 30 groups.*use 30 folds at most",
    ),
    "a rare stratum": (
        {"stratify": ["grade"], "folds": 40},
        r"data.folds is 40, but the rarest values of data.stratify have \d+ rows",
    ),
    "few rows": ({"folds": 121}, "data.folds is 121, but there are 120 rows"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(path, case):
    settings, says = REFUSALS[case]
    filled = {
        key: value.format(path=path) if isinstance(value, str) else value
        for key, value in settings.items()
    }
    with pytest.raises(UserError, match=says):
        _ = Table(path, ["hours"], **{"folds": 5, **filled}).rows


def test_a_share_of_test_rows_beside_folds_is_said_to_have_no_effect(path):
    with pytest.warns(UserWarning, match="data.test_fraction has no effect: data.folds is 5"):
        table = Table(path, ["hours"], folds=5, test_fraction=0.3)
    assert len(table.rows["test"]) == 24


# -- other data ------------------------------------------------------------------------------------
def test_digits_have_folds():
    tested = []
    for fold in range(4):
        data = Digits(folds=4, fold=fold)
        sizes = {name: len(data.split(name)) for name in SIDES}
        assert sum(sizes.values()) == 1797
        assert sizes["val"] == pytest.approx(359, abs=1)
        tested += data.split("test").row_info["id"]
    assert sorted(tested) == list(range(1797))
    with pytest.raises(UserError, match=r"data.fold is 4"):
        Digits(folds=4, fold=4)


def test_a_class_of_data_says_whether_it_has_folds():
    kinds = {kind.__name__: kind.can_fold for kind in (Adult, Digits, Sources, Synthetic, Table)}
    assert kinds == {
        "Adult": True,
        "Digits": True,
        "Sources": False,
        "Synthetic": False,
        "Table": True,
    }
