"""Notes on leaks: each is made of a table built for it, and of no clean one."""

import numpy as np
import pandas as pd
import pytest

from src.data import Table
from src.data.audit.finding import write_notes
from src.data.tables.audit.groups import separates_labels
from src.data.tables.audit.leaking_inputs import score_recall
from src.data.tables.splits import split_at_random

N = 300
NAN = float("nan")


def clean(n=N, seed=0):
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, n))
    return pd.DataFrame(
        {
            "x": x.round(6),
            "z": z.round(6),
            "job": rng.choice(["cook", "clerk", "judge"], n),
            "age": rng.integers(18, 80, n),
            "visits": rng.poisson(3, n),
            "y": np.where(x + rng.normal(size=n) > 0, "yes", "no"),
            "score": (x - z + rng.normal(size=n)).round(3),
            "mood": rng.choice(["bad", "fair", "good"], n),
        }
    )


TARGETS = ["y", "score", "mood"]


def noted(folder, frame, targets=TARGETS, **settings):
    """The notes on a table, and that they are among what a person is told."""
    frame.to_csv(folder / "t.csv", index=False)
    table = Table(str(folder / "t.csv"), targets, **settings)
    findings = table.audit()
    found = [finding.write_note() for finding in findings]
    told = write_notes(findings)
    assert table.notes()[-len(told) :] == told or not told
    assert all(note.startswith("note: ") and "\n" not in note for note in found)
    return found


def only(folder, frame, targets=TARGETS, **settings):
    (note,) = noted(folder, frame, targets, **settings)
    return note


@pytest.mark.parametrize("seed", range(4))
def test_a_clean_table_is_passed_in_silence(tmp_path, seed):
    assert noted(tmp_path, clean(seed=seed)) == []


@pytest.mark.parametrize("way", [{"stratify": ["y"]}, {"group": "site"}, {"split_column": "fold"}])
def test_other_splits_of_a_clean_table_are_passed_in_silence(tmp_path, way):
    frame = clean(n=600).assign(
        site=[f"s{i // 4}" for i in range(600)],
        fold=[["train", "train", "val", "test"][i * 7 // 5 % 4] for i in range(600)],
    )
    others = [name for name in ("site", "fold") if name not in way.values()]
    assert noted(tmp_path, frame.drop(columns=others), **way) == []


# -- inputs that know the answer -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("column", "target"),
    [
        (lambda f: f["y"], "y"),
        (lambda f: f["y"].map({"yes": "granted", "no": "denied"}), "y"),
        (lambda f: (f["y"] == "yes").astype(int), "y"),
        (lambda f: np.where(f["y"] == "yes", 50.0, -50.0) + f["z"], "y"),
        (lambda f: f["score"], "score"),
        (lambda f: -3 * f["score"] + 7, "score"),
        (lambda f: np.exp(f["score"]).round(6), "score"),
        (lambda f: f["mood"].map({"bad": 1, "fair": 2, "good": 3}), "mood"),
    ],
)
def test_an_input_that_alone_tells_a_target(tmp_path, column, target):
    frame = clean(n=1000)
    note = only(tmp_path, frame.assign(copy=column(frame)))
    assert note.startswith(f"note: 'copy' alone tells {target} almost without fail: ")
    assert "--data.drop '[copy]' leaves it out" in note


@pytest.mark.parametrize(
    "column",
    [
        lambda f: np.where(f.index % 5 == 0, "no", f["y"]),
        lambda f: (f["score"] + np.random.default_rng(1).normal(size=len(f)) / 2).round(6),
    ],
)
def test_a_good_input_is_no_copy(tmp_path, column):
    frame = clean(n=1000)
    assert noted(tmp_path, frame.assign(good=column(frame))) == []


def test_recall_counts_classes_alike():
    bins = np.repeat([0, 1], [980, 20])
    labels = np.repeat([0.0, 1.0], [980, 20])[:, None]
    assert score_recall(bins, bins, labels, labels) == pytest.approx([1.0])
    constant = np.zeros(1000, dtype=int)
    assert score_recall(constant, constant, labels, labels) == pytest.approx(
        [0.5]
    )  # however rare a class is


# -- identifiers and codes -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("k", np.random.default_rng(0).permutation(N)),
        ("k", 1003 + 7 * np.random.default_rng(0).permutation(N)),
        ("k", np.cumsum(np.random.default_rng(0).integers(1, 9, N))),
        ("patient_id", np.random.default_rng(0).choice(10**6, N, replace=False)),
        ("k", np.where(np.arange(N) % 10 == 3, NAN, np.random.default_rng(0).permutation(N))),
    ],
)
def test_whole_numbers_that_name_rows(tmp_path, name, values):
    note = only(tmp_path, clean().assign(**{name: pd.Series(values).astype("Int64")}))
    assert (
        note == f"note: {name}: another whole number in each row, as identifiers are: "
        f"--data.drop '[{name}]' leaves them out"
    )


@pytest.mark.parametrize("code", [-999, -1, 9999, -99, 1e35])
def test_codes_for_missing(tmp_path, code):
    values = clean()["z"].abs() if code == -1 else clean()["z"]
    values = (values / 10).where(np.arange(N) % 20 != 3, code)
    notes = noted(tmp_path, clean().assign(z=values))
    assert notes == [
        f"note: 'z' holds {code:g} in 15 rows, far from all else, as codes for missing values are: "
        f"--data.missing '[{code:g}]' reads it as missing"
    ]
    assert noted(tmp_path, clean().assign(z=values), missing=[f"{code:g}"]) == []


def test_a_lone_extreme_and_small_scales_are_no_codes(tmp_path):
    assert noted(tmp_path, clean().assign(z=(clean()["z"]).where(np.arange(N) != 3, 99))) == []
    assert noted(tmp_path, clean().assign(z=np.random.default_rng(3).integers(-1, 6, N))) == []


# -- splits ----------------------------------------------------------------------------------------
def test_few_groups_miss_the_shares(tmp_path):
    frame = clean().assign(site=[f"s{min(i // 50, 3)}" for i in range(N)])
    note = only(tmp_path, frame, group="site")
    assert "asked for: 'site' has 4 groups, which cannot be cut" in note
    table = Table(str(tmp_path / "t.csv"), TARGETS, group="site")
    for name in ("val", "test"):
        share = len(table.rows[name]) / N
        assert (f"{share:.0%} {name} rows, 15% asked for" in note) == (abs(share - 0.15) > 0.05)


def test_a_column_that_looks_like_a_group(tmp_path):
    frame = clean().assign(who=[f"P{i * 7 % 60}" for i in range(N)])
    note = only(tmp_path, frame)
    assert note.startswith("note: rows of train and test share values of 'who': ")
    assert note.endswith(": --data.group who keeps the rows of one on one side")
    assert noted(tmp_path, frame, group="who") == []


def test_numbers_that_look_like_a_group(tmp_path):
    """Rows of one number are alike, those of the next number are not."""
    codes = np.arange(N) * 7 % 50
    effect = np.random.default_rng(2).normal(size=50) * 3
    frame = clean().assign(k=1000 + codes, score=(effect[codes] + clean()["z"] / 3).round(3))
    assert "share values of 'k'" in only(tmp_path, frame, ["score"])
    smooth = clean().assign(k=1000 + codes, score=(codes / 8 + clean()["z"] / 3).round(3))
    assert noted(tmp_path, smooth, ["score"]) == []
    assert separates_labels(codes, True, effect[codes])
    assert not separates_labels(codes, True, codes / 8)
    assert separates_labels(codes, False, codes / 8)  # of words none is next to another
    assert not separates_labels(codes, False, clean()["z"].to_numpy())


def test_a_number_named_as_a_group(tmp_path):
    frame = clean().assign(patient_id=np.arange(N) * 7 % 100)
    assert "share values of 'patient_id'" in only(tmp_path, frame)


def test_rows_that_repeat_across_the_split(tmp_path):
    frame = clean()
    frame.loc[150:] = frame.loc[:149].to_numpy()
    frame = frame.infer_objects()
    notes = noted(tmp_path, frame)
    table = Table(str(tmp_path / "t.csv"), TARGETS)
    again = {
        name: np.isin(table.rows[name] % 150, table.rows["train"] % 150).sum()
        for name in ("val", "test")
    }
    assert min(again.values()) > 20
    assert [note.partition(",")[0] for note in notes if "copies" in note] == [
        f"note: {count} of 45 {name} rows ({count / 45:.0%}) are copies of training rows"
        for name, count in again.items()
    ]


def test_one_file_for_all_splits(tmp_path):
    path = tmp_path / "t.csv"
    other = tmp_path / "other.csv"
    clean().to_csv(other, index=False)
    notes = noted(tmp_path, clean(), val_path=str(path), test_path=str(other))
    same = "its scores say nothing about new rows"
    for side in ("val", "test"):
        assert (
            f"note: the train and the {side} file are the same: {same}: "
            f"--data.{side}_path null splits rows off instead"
        ) in notes
    assert "note: 300 of 300 val rows (100%) are copies of training rows" in "\n".join(notes)
    clean(seed=5).to_csv(other, index=False)
    assert noted(tmp_path, clean(), val_fraction=0.2, test_path=str(other)) == []


def test_a_class_that_no_test_row_has(tmp_path):
    fold = ["train"] * 200 + ["val"] * 50 + ["test"] * 50
    mood = [["bad", "fair", "good"][i % 3] for i in range(250)] + ["bad", "fair"] * 25
    frame = clean().assign(fold=fold, mood=mood)
    note = "note: no test row of 'mood' is of good: some scores are not defined"
    assert only(tmp_path, frame, split_column="fold") == note
    tests = split_at_random(300, 0.15, 0.15, 0) == "test"
    frame = clean().assign(
        mood=[["bad", "fair", "good"][i % (2 if tests[i] else 3)] for i in range(300)]
    )
    assert (
        only(tmp_path, frame) == f"{note}: --data.stratify '[mood]' deals classes out in proportion"
    )
