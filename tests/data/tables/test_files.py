"""The files of a run: known by their content; other content is new rows, or refused."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import torch

from src.data import Table

N = 60
WAYS = {
    "random": {},
    "stratified": {"stratify": ["y"]},
    "grouped": {"group": "site"},
    "by column": {"split_column": "fold"},
    "by file": {"val_path": "val.csv", "test_path": "test.csv"},
}


def people(n=N, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": rng.normal(size=n).round(6),
            "job": rng.choice(["cook", "clerk"], n),
            "site": [f"s{i % 9}" for i in range(n)],
            "fold": [["train", "train", "val", "test"][i % 4] for i in range(n)],
            "y": [["no", "yes"][i * 5 // 3 % 2] for i in range(n)],
        }
    )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(frame, name="data.csv"):
    frame.to_csv(name, index=False)
    return name


def settings_of(way):
    """A run's settings, and its files."""
    saved(people())
    if way == "by file":
        saved(people(20, seed=1), "val.csv")
        saved(people(25, seed=2), "test.csv")
    return {"path": "data.csv", "targets": ["y"], **WAYS[way]}


def run(way="random"):
    """A table and the settings that open it again by its schema, as a run's commands do."""
    settings = settings_of(way)
    table = Table(**settings)
    table.notes()
    with open("schema.json", "w") as file:
        json.dump(table.schema(), file)
    return table, {**settings, "schema_path": "schema.json"}


CHANGES = {
    "appended": (
        lambda frame: pd.concat([frame, people(1, seed=9)]),
        "it has 61 rows where it had 60: 1 are new",
    ),
    "reordered": (lambda frame: frame.iloc[::-1], "its rows are in another order"),
    "edited": (
        lambda frame: frame.assign(x=frame["x"].where(frame.index != 7, 9.5)),
        "1 are new or changed, and 1 are gone",
    ),
    "cut": (
        lambda frame: frame.iloc[:50],
        "it has 50 rows where it had 60: 0 are new or changed, and 10 are gone",
    ),
    "relabelled": (
        lambda frame: frame.assign(y=frame["y"].shift(fill_value="no")),
        "its inputs are the same, its labels or other",
    ),
    "replaced": (lambda frame: people(60, seed=5), "it has 60 rows where it had 60: "),
    "without a column": (lambda frame: frame.drop(columns="job"), "it lacks the column 'job'"),
    "with another unit": (lambda frame: frame.assign(x=frame["x"] * 60), "are new or changed"),
    "with a category renamed": (
        lambda frame: frame.replace({"job": {"cook": "chef"}}),
        "are new or changed",
    ),
}


@pytest.mark.parametrize(
    ("way", "change"),
    [
        *(("random", change) for change in CHANGES),
        *(
            (way, change)
            for way in ("stratified", "grouped", "by column")
            for change in ("appended", "reordered")
        ),
    ],
)
def test_a_run_refuses_its_file_once_it_has_changed(way, change):
    """None of the verbs splits it anew, so no row that trained is tested."""
    _, again = run(way)
    alter, says = CHANGES[change]
    saved(alter(people()))
    for look in (
        lambda t: t.check_files(),
        lambda t: t.split("test"),
        lambda t: t.split("predict"),
        lambda t: t.describe("test"),
    ):
        with pytest.raises(
            ValueError, match=r"^data.csv: is not the file that the run began with: "
        ) as caught:
            look(Table(**again))
        assert says in str(caught.value)
        assert "Restore it, or name it as new rows: --data.path data.csv" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("role", "name"), [("val", "val.csv"), ("test", "test.csv")])
def test_a_file_of_one_split_that_has_changed_is_refused_where_it_is_read(role, name):
    table, again = run("by file")
    saved(people(26, seed=3), name)
    with pytest.raises(
        ValueError,
        match=rf"^{name}: is not the file that the run began with: "
        rf"it has 26 rows where it had 2.*--data.{role}_path",
    ):
        Table(**again).split(role)
    with pytest.raises(ValueError, match=rf"^{name}: "):
        Table(**again).check_files()
    # predictions of the main file ask for no other
    assert torch.equal(
        Table(**again).split("predict").inputs["dense"], table.split("predict").inputs["dense"]
    )


def test_a_file_that_is_gone():
    _, again = run()
    os.remove("data.csv")
    with pytest.raises(
        ValueError,
        match=r"^data.csv: is not the file that the run began with "
        r"\(it is gone, or cannot be read\)",
    ):
        Table(**again).check_files()


@pytest.mark.parametrize("way", WAYS)
def test_a_run_opened_again_has_the_same_rows_on_each_side(way):
    table, again = run(way)
    opened = Table(**again)
    opened.check_files()
    assert not opened.is_new
    assert opened.tasks == table.tasks
    assert opened.columns == table.columns
    for name in ("train", "val", "test", "predict"):
        before, now = table.split(name), opened.split(name)
        assert before.row_info == now.row_info
        for key in before.inputs:
            assert torch.equal(before.inputs[key], now.inputs[key])
        for task in before.targets:
            assert torch.equal(before.targets[task], now.targets[task])
    assert json.loads(json.dumps(table.schema())) == opened.schema()
    assert opened.describe("test") == f"{len(table.split('test'))} rows of the test split"


def test_other_settings_of_the_split_do_not_split_a_run_anew():
    table, again = run()
    opened = Table(**again | {"split_seed": 5, "val_fraction": 0.3, "test_fraction": 0.3})
    assert opened.rows["test"].tolist() == table.rows["test"].tolist()


@pytest.mark.parametrize("way", ["random", "by file"])
def test_a_run_finds_its_files_from_another_folder_and_after_a_move(way, folder, monkeypatch):
    table, again = run(way)
    wanted = table.split("test").targets["y"].tolist()
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    absolute = again | {"schema_path": str(folder / "schema.json")}
    assert (
        Table(**absolute).split("test").targets["y"].tolist() == wanted
    )  # where they lay in training
    for name in ("data.csv", "val.csv", "test.csv"):
        if (folder / name).exists():
            os.rename(folder / name, folder / "elsewhere" / name)
    assert (
        Table(**absolute).split("test").targets["y"].tolist() == wanted
    )  # as the settings say, from here
    os.rename("data.csv", "renamed.csv")
    assert (
        Table(**absolute | {"path": "renamed.csv"}).split("test").targets["y"].tolist() == wanted
    )  # by their content


def test_another_file_of_the_same_name_in_another_folder_is_not_the_runs(folder, monkeypatch):
    """The settings' name may mean another file here: the file of training counts."""
    table, again = run()
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    saved(people(33, seed=8))
    opened = Table(**again | {"schema_path": str(folder / "schema.json")})
    assert opened.row_info("test") == table.row_info("test")


# -- new rows --------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [1, 5, 60])
def test_another_file_is_evaluated_whole(way, rows):
    _, again = run(way)
    saved(people(rows, seed=7), "new.csv")
    opened = Table(**again | {"path": "new.csv"})
    assert opened.is_new
    opened.check_files()
    assert len(opened.split("test")) == len(opened.split("predict")) == rows
    assert (
        opened.split("test").targets["y"].tolist()
        == (people(rows, seed=7)["y"] == "yes").astype(float).tolist()
    )
    assert opened.row_info("test") == opened.row_info("predict") == {"id": list(range(1, rows + 1))}
    assert opened.describe("test") == f"all {rows} rows of new.csv, a file that is not the run's"
    assert {name: len(part) for name, part in opened.rows.items()} == {
        "train": 0,
        "val": 0,
        "test": rows,
    }
    with pytest.raises(
        ValueError,
        match=r"new.csv holds new rows, and none of them is of the run's val split: "
        r"leave --split out",
    ):
        opened.split("val")


def test_rows_that_the_run_was_trained_on_are_counted_among_new_ones():
    table, again = run()
    trained, tested = table.rows["train"][:3], table.rows["test"][:4]
    saved(pd.concat([people().iloc[trained], people().iloc[tested], people(2, seed=6)]), "new.csv")
    described = Table(**again | {"path": "new.csv"}).describe("test")
    assert described == (
        "all 9 rows of new.csv, a file that is not the run's; "
        "3 of them have the inputs of rows that the run was trained on"
    )


def test_a_changed_file_of_the_runs_name_is_new_rows_where_a_command_names_it():
    _, again = run()
    saved(people(61, seed=3))
    opened = Table(**again)
    opened.new_rows = True
    assert opened.is_new
    assert len(opened.split("test")) == 61


def test_the_runs_own_file_named_by_hand_stays_the_runs():
    table, again = run()
    opened = Table(**again)
    opened.new_rows = True
    assert not opened.is_new
    assert opened.row_info("test") == table.row_info("test")
    os.link("data.csv", "copy.csv")
    copied = Table(**again | {"path": "copy.csv"})
    assert not copied.is_new
    assert copied.row_info("test") == table.row_info("test")


@pytest.mark.parametrize("ending", ["parquet", "tsv", "csv.gz"])
def test_new_rows_may_come_in_another_form(ending):
    _, again = run()
    frame = people(12, seed=4)
    name = f"new.{ending}"
    frame.to_parquet(name) if ending == "parquet" else frame.to_csv(
        name, index=False, sep="\t" if ending == "tsv" else ","
    )
    saved(frame, "new.csv")
    one, other = (Table(**again | {"path": path}).split("test") for path in (name, "new.csv"))
    assert torch.equal(one.inputs["dense"], other.inputs["dense"])
    assert torch.equal(one.inputs["categorical"], other.inputs["categorical"])
    assert torch.equal(one.targets["y"], other.targets["y"])


def test_a_damaged_or_older_schema():
    _, again = run()
    with open("schema.json") as file:
        schema = json.load(file)
    del schema["sides"]
    with open("schema.json", "w") as file:
        json.dump(schema, file)
    with pytest.raises(ValueError, match=r"schema.json is damaged: sides is missing"):
        Table(**again)


# -- what a run keeps ------------------------------------------------------------------------------
def test_the_fingerprint_of_a_run():
    table, _ = run("by file")
    found = table.fingerprint()
    assert list(found["files"]) == ["train", "val", "test"]
    main = found["files"]["train"]
    assert main["given"] == "data.csv"
    assert main["path"] == os.path.abspath("data.csv")
    assert main["bytes"] == os.path.getsize("data.csv")
    assert len(main["sha256"]) == 64
    assert (main["rows"], main["columns"]) == (N, ["x", "job", "site", "fold", "y"])
    assert found["files"]["test"]["rows"] == 25
    assert sorted(table.files()) == ["data.csv", "test.csv", "val.csv"]


def test_no_result_may_overwrite_a_file_of_the_run():
    _, again = run()
    opened = Table(**again | {"path": "new.csv"})
    assert opened.files() == ["new.csv", os.path.abspath("data.csv")]
