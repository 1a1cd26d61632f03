"""Tables end to end, on small files that the tests write."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from src.data import Table
from src.data.tables.columns import Categorical, Numeric
from src.data.tables.labels import Labels
from src.tasks import (
    MISSING,
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
)

NAN = float("nan")
N = 120


def people(n=N, seed=0):
    """Returns a table of numbers and words with gaps, constants and four kinds of labels."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "row": np.arange(n),
            "age": rng.integers(20, 60, n).astype(float),
            "job": rng.choice(["cook", "clerk", "judge"], n),
            "same": "x",
            "note": [f"note {rng.integers(10**9)}" for _ in range(n)],
            "flag": rng.random(n) < 0.4,
            "income": np.round(rng.normal(1000, 200, n), 2),
            "rich": rng.choice(["no", "yes"], n),
            "mood": rng.choice(["bad", "fair", "good"], n),
            "a": rng.integers(2, size=n).astype(float),
            "b": rng.integers(2, size=n).astype(float),
        }
    )
    frame.loc[rng.random(n) < 0.2, "age"] = None
    frame.loc[rng.random(n) < 0.2, "job"] = None
    frame.loc[rng.random(n) < 0.2, "income"] = None
    frame.loc[rng.random(n) < 0.2, "mood"] = None
    frame.loc[rng.random(n) < 0.2, "a"] = None
    return frame


TARGETS: dict[str, str | list[str]] = {
    "income": "income",
    "rich": "rich",
    "mood": "mood",
    "tags": ["a", "b"],
}


@pytest.fixture
def path(tmp_path):
    return saved(people(), tmp_path)


def saved(frame, folder, name="people.csv"):
    frame.to_csv(folder / name, index=False)
    return str(folder / name)


def rows_of(table, name):
    return table.rows[name]


def sizes(table):
    return {name: len(table.split(name)) for name in ("train", "val", "test", "predict")}


# -- tasks -----------------------------------------------------------------------------------------
def test_kinds_and_reasons(path):
    table = Table(path, TARGETS)
    assert {name: type(task) for name, task in table.tasks.items()} == {
        "income": Regression,
        "rich": BinaryClassification,
        "mood": Classification,
        "tags": MultilabelClassification,
    }
    assert table.tasks["mood"].classes == ("bad", "fair", "good")
    assert table.tasks["rich"].classes == ("no", "yes")
    assert table.tasks["tags"].labels == ("a", "b")
    notes = "\n".join(table.notes())
    positive = (pd.read_csv(path)["rich"].iloc[rows_of(table, "train")] == "yes").mean()
    majority = (
        f", the majority ({positive:.0%}), unless its setting classes is [yes, no]"
        if positive > 0.5
        else ""
    )
    assert (
        f"task rich: BinaryClassification (two values: no, yes; positive: yes{majority})" in notes
    )
    assert re.search(
        r"task income: Regression \(\d+ different numbers, \d+\.\d% of the labels missing\)", notes
    )
    assert "task mood: Classification (3 values: bad, fair, good" in notes
    assert f"rows: {len(rows_of(table, 'train'))} to train, 18 to validate, 18 to test" in notes


def test_labels_are_those_of_the_file_with_missing_ones_marked(path):
    frame, table = pd.read_csv(path), Table(path, TARGETS)
    for name in ("train", "val", "test"):
        rows = rows_of(table, name)
        targets = table.split(name).targets
        part = frame.iloc[rows]
        wanted = (part["income"] - table.tasks["income"].mean[0]) / table.tasks["income"].std[0]
        np.testing.assert_allclose(targets["income"], wanted, rtol=1e-4, atol=1e-6)
        moods = {"bad": 0, "fair": 1, "good": 2}
        assert targets["mood"].tolist() == [moods.get(m, MISSING) for m in part["mood"]]
        assert targets["rich"].tolist() == [float(r == "yes") for r in part["rich"]]
        np.testing.assert_array_equal(targets["tags"], part[["a", "b"]])


def test_everything_is_learnt_from_the_training_rows_alone(path, tmp_path):
    table = Table(path, TARGETS)
    frame = pd.read_csv(path)
    outside = np.concatenate([rows_of(table, "val"), rows_of(table, "test")])
    frame.loc[outside, "age"] = 1e6
    frame.loc[outside, "income"] += 1e6
    frame["job"] = frame["job"].astype(object)
    frame.loc[outside[::2], "job"] = "unseen"
    changed = Table(saved(frame, tmp_path, "changed.csv"), TARGETS)
    assert (rows_of(changed, "train") == rows_of(table, "train")).all()
    assert changed.columns == table.columns
    assert changed.tasks == table.tasks
    train = frame.iloc[rows_of(table, "train")]
    age = next(c for c in table.columns if c.column == "age")
    assert age.mean == pytest.approx(train["age"].mean())
    assert age.std == pytest.approx(train["age"].std(ddof=0))
    assert table.tasks["income"].mean[0] == pytest.approx(train["income"].mean())
    codes = changed.split("val").inputs["categorical"][:, 0]
    unseen = (frame.iloc[rows_of(table, "val")]["job"] == "unseen").to_numpy()
    assert unseen.any()
    assert (codes.numpy() == 0).tolist() == unseen.tolist()


def test_targets_are_never_inputs(path):
    table = Table(path, TARGETS)
    assert [c.column for c in table.columns] == ["age", "job", "flag"]
    assert table.dropped["same"] == "constant in the training rows"
    assert table.dropped["row"] == "counts the rows"
    assert "an identifier or free text" in table.dropped["note"]
    one = Table(path, ["rich"])
    assert {"income", "mood", "a", "b"} <= {c.column for c in one.columns}
    with pytest.raises(ValueError, match=r"data.inputs names 'a', which is a target"):
        Table(path, TARGETS, inputs=["age", "a"]).columns  # noqa: B018


def test_inputs_of_a_split(path):
    table = Table(path, TARGETS)
    assert table.input_shape.dense == (3,)  # age, whether it is missing, flag
    assert table.input_shape.categories == (5,)  # unseen, three jobs, missing
    frame = pd.read_csv(path).iloc[rows_of(table, "val")]
    inputs = table.split("val").inputs
    age, job, flag = table.columns
    missing = frame["age"].isna()
    np.testing.assert_allclose(
        inputs["dense"][:, 0], ((frame["age"] - age.mean) / age.std).where(~missing, 0), atol=1e-5
    )
    assert inputs["dense"][:, 1].tolist() == missing.astype(float).tolist()
    words = ["", "clerk", "cook", "judge", None]
    assert inputs["categorical"][:, 0].tolist() == [
        words.index(j if isinstance(j, str) else None) for j in frame["job"]
    ]
    assert job.vocabulary == ("clerk", "cook", "judge", None)
    assert flag.column == "flag"


def test_inputs_drop_and_categorical(path):
    table = Table(path, TARGETS, inputs=["row", "note", "age"], drop=["age"], categorical=["row"])
    assert [(c.column, type(c)) for c in table.columns] == [
        ("row", Categorical),
        ("note", Categorical),
    ]
    table = Table(path, TARGETS, inputs=["row"])
    assert [(c.column, type(c)) for c in table.columns] == [("row", Numeric)]
    with pytest.raises(ValueError, match="no input column is left"):
        Table(path, TARGETS, inputs=["same"]).columns  # noqa: B018


def test_what_is_set_by_hand_stays(path):
    tasks = {
        "income": {
            "class_path": "Regression",
            "init_args": {"loss": "huber", "mean": [0.0], "std": [100.0]},
        },
        "rich": {"classes": ["yes", "no"], "weight": 3},
        "mood": Classification(classes=("good", "fair", "bad"), label_smoothing=0.1),
        "tags": "MultilabelClassification",
    }
    table = Table(path, TARGETS, tasks)
    assert table.tasks["income"] == Regression(loss="huber", mean=(0.0,), std=(100.0,))
    assert table.tasks["rich"] == BinaryClassification(classes=("yes", "no"), weight=3)
    assert table.tasks["mood"] is tasks["mood"]
    notes = "\n".join(table.notes())
    assert "task mood: Classification (set by hand" in notes
    assert "task rich: BinaryClassification (two values: yes, no; positive: no" in notes


def test_several_columns_of_numbers_are_a_vector(path):
    table = Table(path, {"both": ["income", "age"]})
    task = table.tasks["both"]
    assert isinstance(task, Regression)
    assert task.names == ("income", "age")
    frame = pd.read_csv(path).iloc[rows_of(table, "train")][["income", "age"]]
    np.testing.assert_allclose(task.mean, frame.mean())
    np.testing.assert_allclose(task.std, frame.std(ddof=0))
    np.testing.assert_allclose(
        table.split("train").targets["both"],
        (frame - frame.mean()) / frame.std(ddof=0),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_list_of_targets_names_tasks_after_columns(tmp_path):
    frame = people().rename(columns={"rich": "is rich?", "income": "income.2020"})
    table = Table(saved(frame, tmp_path), ["is rich?", "income.2020"])
    assert table.targets == {"is_rich": ["is rich?"], "income_2020": ["income.2020"]}


# -- splits ----------------------------------------------------------------------------------------
def test_shares(path):
    table = Table(path, TARGETS, val_fraction=0.2, test_fraction=0.25)
    sizes = {name: len(rows) for name, rows in table.rows.items()}
    assert sizes == {"train": 66, "val": 24, "test": 30}


def test_strata_named_by_hand(path):
    table = Table(path, TARGETS, val_fraction=0.2, test_fraction=0.25, stratify=["rich", "flag"])
    frame = pd.read_csv(path)
    for _, part in frame.groupby(["rich", "flag"]):
        for name, share in (("val", 0.2), ("test", 0.25)):
            assert abs(np.isin(part.index, rows_of(table, name)).sum() - share * len(part)) <= 2
    with pytest.raises(
        ValueError, match=r"data.group and data.stratify cannot both say how to split"
    ):
        Table(path, TARGETS, stratify=["rich"], group="flag")


def test_the_split_is_a_function_of_its_seed_and_the_row_alone(path, tmp_path):
    def split(where=path, targets=TARGETS, **settings):
        return {
            name: rows.tolist() for name, rows in Table(where, targets, **settings).rows.items()
        }

    first = split()
    assert first == split(seed=5) != split(split_seed=1)
    for targets in (["rich"], ["income"], ["a", "b"], {"tags": ["a", "b"]}, ["flag", "age"]):
        assert split(targets=targets) == first
    assert split(inputs=["age"]) == split(drop=["job"]) == first
    longer = split(saved(pd.concat([people(), people(31, seed=4)]), tmp_path, "longer.csv"))
    assert {name: [row for row in rows if row < N] for name, rows in longer.items()} == first


def test_rows_of_a_rare_class_train(tmp_path):
    frame = people()
    frame.loc[[7, 70], "mood"] = "ecstatic"
    table = Table(saved(frame, tmp_path), TARGETS)
    assert {7, 70} <= set(rows_of(table, "train").tolist())
    assert table.tasks["mood"].classes == ("bad", "ecstatic", "fair", "good")


def test_rows_of_the_tail_of_counts_train(tmp_path):
    """Up to ten whole numbers are classes; the training rows alone decide."""
    counts = np.arange(N) % 6
    table = Table(saved(people().assign(count=counts), tmp_path), ["count"])
    others = np.concatenate([rows_of(table, "val")[:4], rows_of(table, "test")[:4]])
    counts[others] = 11 + np.arange(8)
    table = Table(saved(people().assign(count=counts), tmp_path), ["count"])
    assert set(others) <= set(rows_of(table, "train").tolist())
    assert len(table.split("val").targets["count"])
    assert "Regression" in table.notes()[0]


def test_groups_stay_together(tmp_path):
    frame = people().assign(home=np.arange(N) // 3)
    table = Table(saved(frame, tmp_path), TARGETS, group="home")
    homes = {name: set((rows // 3).tolist()) for name, rows in table.rows.items()}
    assert not homes["train"] & homes["val"]
    assert not homes["train"] & homes["test"]
    assert not homes["val"] & homes["test"]
    assert "home" not in [c.column for c in table.columns]


def test_a_column_that_says_the_split(tmp_path):
    side = np.tile(["train", "train", "dev", "test"], N // 4)
    table = Table(saved(people().assign(side=side), tmp_path), TARGETS, split_column="side")
    assert rows_of(table, "val").tolist() == list(range(2, N, 4))
    assert rows_of(table, "test").tolist() == list(range(3, N, 4))
    assert "side" not in [c.column for c in table.columns]
    side[1] = "trian"
    with pytest.raises(ValueError, match=r"people.csv row 2: column 'side' holds 'trian'"):
        Table(saved(people().assign(side=side), tmp_path), TARGETS, split_column="side").tasks  # noqa: B018
    path = saved(people().assign(side=["train", "test"] * (N // 2)), tmp_path)
    with pytest.raises(ValueError, match="the val split has no rows: column 'side' names none"):
        Table(path, TARGETS, split_column="side").tasks  # noqa: B018


def test_files_of_validation_and_test_rows(tmp_path):
    path = saved(people(), tmp_path)
    val = saved(
        people(30, seed=1)[list(reversed(people().columns))], tmp_path, "val.csv"
    )  # columns in another order
    test = saved(people(20, seed=2).assign(extra=1), tmp_path, "test.csv")
    table = Table(path, TARGETS, val_path=val, test_path=test)
    assert sizes(table) == {"train": N, "val": 30, "test": 20, "predict": N}
    assert table.tasks["income"].mean[0] == pytest.approx(people()["income"].mean())
    assert table.split("test").targets["rich"].tolist() == [
        float(r == "yes") for r in people(20, seed=2)["rich"]
    ]
    assert table.split("val").targets["rich"].tolist() == [
        float(r == "yes") for r in people(30, seed=1)["rich"]
    ]
    only_test = Table(path, TARGETS, test_path=test)
    assert sizes(only_test) == {"train": N - 18, "val": 18, "test": 20, "predict": N}


def test_a_split_file_with_a_mistake_is_named(tmp_path):
    path = saved(people(), tmp_path)
    lacking = saved(people(30).drop(columns="age"), tmp_path, "val.csv")
    with pytest.raises(ValueError, match=r"val.csv: lacks the column 'age' of .*people.csv"):
        Table(path, TARGETS, val_path=lacking).tasks  # noqa: B018
    odd = people(20).astype({"mood": object})
    odd.loc[4, "mood"] = "furious"
    with pytest.raises(
        ValueError, match=r"test.csv row 5: target 'mood' holds the class 'furious'"
    ):
        Table(path, TARGETS, test_path=saved(odd, tmp_path, "test.csv")).split("test")


# -- new files -------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "csv.gz"])
def test_a_schema_reads_new_rows_as_the_run_did(path, tmp_path, ending):
    table = Table(path, TARGETS, {"rich": {"weight": 2}}, dates="expand", id="row")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(table.schema()))
    frame = pd.read_csv(path).iloc[[5, 3, 99, 40]].drop(columns=["same", "note"])
    new = str(tmp_path / f"new.{ending}")
    if ending == "parquet":
        frame.to_parquet(new)
    else:
        frame.to_csv(new, index=False, sep="\t" if ending == "tsv" else ",")
    again = Table(new, schema_path=str(schema), id="row")
    assert again.tasks == table.tasks
    assert again.columns == table.columns
    assert again.input_shape == table.input_shape
    wanted = table.split("predict").inputs
    got = again.split("predict")
    for key, values in got.inputs.items():
        assert torch.equal(values, wanted[key][[5, 3, 99, 40]]), key
    assert got.targets == {}
    wanted_ids = [5, 3, 99, 40] if ending == "parquet" else ["5", "3", "99", "40"]
    assert again.row_info("predict") == {"id": wanted_ids}
    for name in TARGETS:
        whole = table.encode_targets_of("train", name)[[5, 3, 99, 40]]
        np.testing.assert_array_equal(again.encode_targets_of("train", name), whole)
        np.testing.assert_array_equal(again.split("test").targets[name], whole)


def test_new_rows_need_no_labels_but_all_inputs(path, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(Table(path, TARGETS).schema()))
    bare = people(9)[["age", "job", "flag"]]
    again = Table(saved(bare, tmp_path, "new.csv"), schema_path=str(schema))
    assert len(again.split("predict")) == 9
    with pytest.raises(ValueError, match=r"new.csv: lacks the target column 'income'"):
        again.split("test")
    lacking = Table(saved(bare.drop(columns="job"), tmp_path, "new.csv"), schema_path=str(schema))
    with pytest.raises(ValueError, match=r"new.csv: lacks the input column 'job'"):
        lacking.split("predict")
    wrong = bare.astype({"age": object})
    wrong.loc[2, "age"] = "old"
    with pytest.raises(ValueError, match=r"new.csv row 3: column 'age' holds 'old' where a number"):
        Table(saved(wrong, tmp_path, "new.csv"), schema_path=str(schema)).split("predict")


def test_a_name_with_a_dot_is_no_part_of_a_date(tmp_path):
    frame = people().rename(columns={"age": "flag.age"})
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(Table(saved(frame, tmp_path), ["rich"]).schema()))
    lacking = saved(frame.drop(columns="flag.age"), tmp_path, "new.csv")
    with pytest.raises(ValueError, match=r"lacks the input column 'flag.age'"):
        Table(lacking, schema_path=str(schema)).split("predict")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_dates_are_refused_or_expanded(tmp_path, ending):
    when = pd.date_range("2019-12-30 06:00", periods=N, freq="31h")
    frame = people().assign(when=when)[["when", "age", "rich"]]
    path = tmp_path / f"a.{ending}"
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    with pytest.raises(
        ValueError, match=r"column 'when' holds dates: set --data.dates expand, or --data.drop"
    ):
        Table(str(path), ["rich"]).columns  # noqa: B018
    assert [c.column for c in Table(str(path), ["rich"], drop=["when"]).columns] == ["age"]
    table = Table(str(path), ["rich"], dates="expand")
    names = [c.column for c in table.columns]
    assert set(names) == {
        "when.year",
        "when.month",
        "when.day",
        "when.day_of_week",
        "when.hour",
        "age",
    }
    month = table.columns[names.index("when.month")]
    wanted = (when.month.to_numpy() - month.mean) / month.std
    got = table.split("predict").inputs["dense"][:, names.index("when.month")]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(table.schema()))
    new = saved(frame.iloc[[50, 4]], tmp_path, "new.csv")
    again = Table(new, schema_path=str(schema)).split("predict").inputs["dense"]
    assert torch.equal(again, table.split("predict").inputs["dense"][[50, 4]])


def test_prediction_names_rows_by_the_id_column_or_by_number(path):
    named = Table(path, TARGETS, id="row")
    assert named.row_info("predict")["id"] == [str(row) for row in range(N)]
    assert named.row_info("test")["id"] == [str(row) for row in rows_of(named, "test")]
    assert "row" not in [c.column for c in named.columns]
    assert Table(path, TARGETS).row_info("predict")["id"] == list(range(1, N + 1))
    assert Table(path, TARGETS).row_info("val")["id"] == [row + 1 for row in rows_of(named, "val")]


def test_predictions_of_the_run_name_the_side_of_each_row(path):
    table = Table(path, TARGETS)
    sides = np.array(table.row_info("predict")["split"])
    for name in ("train", "val", "test"):
        assert np.flatnonzero(sides == name).tolist() == rows_of(table, name).tolist()
        assert set(table.row_info(name)["split"]) == {name}


def test_the_truth_stands_beside_predictions_as_written(path):
    table, frame = Table(path, TARGETS), pd.read_csv(path)
    part = frame.iloc[rows_of(table, "test")]
    truth = table.truth("test")
    assert truth["rich"][""] == part["rich"].tolist()
    assert truth["mood"][""] == [mood if isinstance(mood, str) else None for mood in part["mood"]]
    np.testing.assert_array_equal(truth["income"][""], part["income"])
    assert truth["tags"]["a"] == [None if np.isnan(label) else int(label) for label in part["a"]]


def test_labels_of_many_tasks_are_read_once_for_all_commands(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    inputs = {f"x{i}": rng.normal(size=200).round(3) for i in range(30)}
    frame = pd.DataFrame(inputs | {f"t{i}": rng.integers(2, size=200) for i in range(25)})
    calls = []
    values = Labels.values
    monkeypatch.setattr(
        Labels, "values", lambda self, *given: calls.append(self.columns) or values(self, *given)
    )
    table = Table(saved(frame, tmp_path), ["t*"])
    table.notes()
    table.schema()
    for name in ("train", "val", "test"):
        table.split(name)
    assert len(calls) == 2 * 25  # to find the classes of the training rows, and to encode all rows


# -- mistakes --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": None}, "data.targets is missing"),
        ({"targets": ["a b", "a.b"]}, "differ in punctuation alone"),
        (
            {"tasks": {"incme": "Regression"}},
            "data.tasks names 'incme', which is no target: did you mean 'income'",
        ),
        ({"group": "a", "split_column": "b"}, "cannot both say how to split"),
        ({"val_fraction": 1.0}, "data.val_fraction is 1.0"),
        ({"test_fraction": -0.1}, "data.test_fraction is -0.1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave no rows to train"),
    ],
)
def test_settings_that_cannot_be(path, settings, message):
    with pytest.raises(ValueError, match=message):
        Table(**{"path": path, "targets": TARGETS, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"targets": ["incme"]},
            "data.targets names 'incme', which is no column: did you mean 'income'",
        ),
        ({"inputs": ["agee"]}, "data.inputs names 'agee', which is no column: did you mean 'age'"),
        ({"drop": ["zz"]}, "data.drop names 'zz'"),
        ({"categorical": ["zz"]}, "data.categorical names 'zz'"),
        ({"id": "zz"}, "data.id names 'zz'"),
        ({"group": "zz"}, "data.group names 'zz'"),
        ({"split_column": "zz"}, "data.split_column names 'zz'"),
        ({"group": "job"}, r"row \d+: column 'job' is missing; each row needs its group"),
        ({"targets": ["same"]}, "target 'same' has the single value 'x'"),
        (
            {"targets": ["note"], "tasks": {"note": "Regression"}},
            r"row \d+: target 'note' holds 'note \d+' where a number",
        ),
        (
            {"targets": ["note"]},
            "the val split has no rows: .* since no other row there has their class; "
            "of a target that is a number",
        ),
        (
            {"targets": ["mood"], "tasks": {"mood": "BinaryClassification"}},
            "target 'mood' has 3 values",
        ),
        (
            {"targets": ["mood"], "tasks": {"mood": {"losss": "x"}}},
            "target 'mood' has no setting 'losss'",
        ),
        (
            {"targets": ["a"], "tasks": {"a": "MultilabelClassification"}},
            "target 'a' must be a list of columns",
        ),
        (
            {"targets": {"t": ["a", "b"]}, "tasks": {"t": "BinaryClassification"}},
            r"target 't' \(a, b\) has 2 columns",
        ),
        ({"targets": {"t": ["mood", "a"]}}, "neither all 0 and 1"),
    ],
)
def test_mistakes_are_named(path, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        Table(**{"path": path, "targets": TARGETS, **settings}).tasks  # noqa: B018
    assert path in str(caught.value)


def test_a_slip_in_a_column_of_numbers_is_found(tmp_path):
    frame = people().astype({"age": object})
    row = int(rows_of(Table(saved(people(), tmp_path), TARGETS), "train")[9])
    frame.loc[row, "age"] = "old"
    path = saved(frame, tmp_path)
    slip = (
        rf"people.csv row {row + 1}: column 'age' holds 'old' "
        "where a number is expected; if it means"
    )
    with pytest.raises(ValueError, match=slip):
        Table(path, TARGETS).columns  # noqa: B018
    assert Table(path, TARGETS, missing=["old"]).columns[0].column == "age"
    assert isinstance(Table(path, TARGETS, categorical=["age"]).columns[0], Categorical)
    frame = people().astype({"income": object})
    frame.loc[row, "income"] = "12,5"
    with pytest.raises(ValueError, match=rf"row {row + 1}: column 'income' holds '12,5'"):
        Table(saved(frame, tmp_path), TARGETS).tasks  # noqa: B018


def test_no_label_in_training(tmp_path):
    side = ["train"] * (N - 20) + ["val"] * 10 + ["test"] * 10
    frame = people().assign(side=side)
    frame.loc[: N - 21, "income"] = None
    with pytest.raises(ValueError, match="target 'income' has no label in the training split"):
        Table(saved(frame, tmp_path), ["income"], split_column="side").tasks  # noqa: B018


def test_too_few_rows(tmp_path):
    with pytest.raises(ValueError, match="split has no rows: 3 rows are too few"):
        Table(saved(people(3), tmp_path), ["rich"]).tasks  # noqa: B018
