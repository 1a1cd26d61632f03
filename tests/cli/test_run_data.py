"""A run knows its data: what evaluate, predict and --resume make of files that are, were or are not
the run's.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.calling import call, refused

SMALL = [
    "--accelerator",
    "cpu",
    "--max_epochs",
    "2",
    "--model.encoder.width",
    "8",
    "--model.encoder.depth",
    "1",
]
SPLITS = {
    "random": [],
    "stratified": ["--data.stratify", "[y]"],
    "grouped": ["--data.group", "home"],
    "by column": ["--data.split_column", "side"],
    "by file": ["--data.test_path", "{here}/test.csv"],
}


def table(rows=120, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows).round(6)  # no two rows alike
    return pd.DataFrame(
        {
            "name": [f"n{i:04}" for i in range(rows)],
            "home": [f"h{i // 4}" for i in range(rows)],
            "side": np.tile(["train", "train", "train", "val", "test"], rows)[:rows],
            "x": x,
            "color": rng.choice(["red", "blue"], rows),
            "y": np.where(x + rng.normal(size=rows) > 0, "yes", "no"),
        }
    )


def trained(folder: Path, *flags: str, targets="[y]", drop="[home, side]", id_="name") -> str:
    words = [word.format(here=folder) for word in flags]
    ended = call(
        *(
            "train",
            "--data",
            "Table",
            "--data.path",
            folder / "data.csv",
            "--data.targets",
            targets,
            "--data.drop",
            drop,
        ),
        *("--data.id", id_, "--logs", folder / "logs", "--name", "run", *SMALL, *words),
    )
    assert ended.code == 0, ended
    return str(next((folder / "logs" / "run").iterdir()))


def metrics(run):
    return json.loads((Path(run) / "metrics.json").read_text())["test"]


def evaluated(run, folder, *flags):
    ended = call("evaluate", "--run", run, "--out", folder / "m.json", "--overwrite", *flags)
    assert ended.code == 0, ended
    return json.loads((folder / "m.json").read_text()), ended


def predicted(run, folder, *flags, name="p.csv"):
    ended = call("predict", "--run", run, "--out", folder / name, "--overwrite", *flags)
    assert ended.code == 0, ended
    return pd.read_csv(folder / name, dtype=str, keep_default_na=False), ended


CHANGES = {
    "appended": lambda frame: pd.concat([frame, frame.iloc[[0]].assign(x=9.0, name="new")]),
    "reordered": lambda frame: frame.iloc[::-1],
    "edited": lambda frame: frame.assign(x=frame["x"].where(frame.index != 7, 3.3)),
    "relabelled": lambda frame: frame.assign(
        y=frame["y"].where(frame.index != 7, "yes" if frame["y"][7] == "no" else "no")
    ),
    "replaced": lambda frame: table(seed=1),
    "cut": lambda frame: frame.iloc[:-1],
    "without a column": lambda frame: frame.drop(columns="color"),
}


@pytest.mark.parametrize(
    "split", [pytest.param(s, marks=() if s == "random" else pytest.mark.slow) for s in SPLITS]
)
def test_a_file_that_has_changed_is_refused_by_every_command(tmp_path, split):
    table().to_csv(tmp_path / "data.csv", index=False)
    table(40, seed=5).to_csv(tmp_path / "test.csv", index=False)
    drop = {"grouped": "[side]", "by column": "[home]"}.get(split, "[home, side]")
    run = trained(tmp_path, *SPLITS[split], drop=drop)
    before = {
        name: (Path(run) / name).read_bytes()
        for name in ("schema.json", "config.yaml", "metrics.json", "run.json")
    }
    same, _ = evaluated(run, tmp_path)
    assert same["test/y/auroc"] == metrics(run)["test/y/auroc"]
    changes = (
        CHANGES if split == "random" else {key: CHANGES[key] for key in ("appended", "reordered")}
    )
    for change, changed in changes.items():
        changed(table()).to_csv(tmp_path / "data.csv", index=False)
        for verb, flags in (
            ("evaluate", []),
            ("predict", ["--out", tmp_path / "o.csv"]),
        ):
            refused(
                call(verb, "--run", run, *flags),
                ["data.csv", "not the file that the run began with", "--data.path"],
            )
        refused(
            call("train", "--resume", run, "--max_epochs", "3"),
            ["data.csv", "not the file that the run began with"],
        )
        assert not (tmp_path / "o.csv").exists()
        for name, content in before.items():
            assert (Path(run) / name).read_bytes() == content, (change, name)
    table().to_csv(tmp_path / "data.csv", index=False)  # restored, all is as before
    again, _ = evaluated(run, tmp_path)
    assert again == same
    assert call("train", "--resume", run, "--max_epochs", "3").code == 0


def test_a_changed_test_file_is_refused_and_one_that_is_gone_where_it_is_read(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    table(40, seed=5).to_csv(tmp_path / "test.csv", index=False)
    run = trained(tmp_path, "--data.test_path", f"{tmp_path}/test.csv")
    there, _ = evaluated(run, tmp_path)
    shutil.move(tmp_path / "test.csv", tmp_path / "moved.csv")
    refused(call("evaluate", "--run", run), ["test.csv", "not the file", "--data.test_path"])
    refused(
        call("train", "--resume", run, "--max_epochs", "3"),
        ["test.csv", "not the file", "--data.test_path"],
    )
    moved, _ = evaluated(run, tmp_path, "--data.test_path", tmp_path / "moved.csv")
    assert moved == there
    evaluated(run, tmp_path, "--split", "val")
    predicted(run, tmp_path)  # needs the inputs of data.csv alone
    table(41, seed=5).to_csv(tmp_path / "test.csv", index=False)
    for flags in ([], ["--split", "val"]):
        refused(
            call("evaluate", "--run", run, *flags), ["test.csv", "not the file", "--data.test_path"]
        )


def test_a_run_records_what_its_data_were(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path)
    data = json.loads((Path(run) / "run.json").read_text())["data"]
    record = data["files"]["train"]
    assert record["rows"] == 120
    assert record["columns"] == list(table().columns)
    assert record["bytes"] == (tmp_path / "data.csv").stat().st_size
    assert len(record["sha256"]) == 64
    assert data["rows"] == {"train": 84, "val": 18, "test": 18}


def test_other_files_are_evaluated_whole(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path)
    for rows in (60, 5):
        new = table(rows, seed=3)
        new.to_csv(tmp_path / "new.csv", index=False)
        found, ended = evaluated(run, tmp_path, "--data.path", tmp_path / "new.csv")
        frame, _ = predicted(run, tmp_path, "--data.path", tmp_path / "new.csv")
        assert found["test/y/accuracy"] == pytest.approx((frame["y"] == new["y"]).mean())
        assert f"all {rows} rows of" in ended.out
        assert "split" not in frame
    refused(
        call("evaluate", "--run", run, "--data.path", tmp_path / "new.csv", "--split", "val"),
        ["new.csv", "new rows", "val"],
    )


def test_rows_that_were_trained_on_are_counted_in_other_files(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path)
    frame, _ = predicted(run, tmp_path)
    CHANGES["appended"](table()).to_csv(tmp_path / "data.csv", index=False)
    _, ended = evaluated(
        run, tmp_path, "--data.path", tmp_path / "data.csv"
    )  # by name: as new rows
    assert "all 121 rows" in ended.out
    trained_on = (frame["split"] == "train").sum()
    words = "of them have the inputs of rows that the run was trained on"
    assert f"{trained_on} {words}" in ended.out


def test_the_run_s_own_file_is_known_by_its_content_wherever_it_lies(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path)
    there, _ = evaluated(run, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "data.csv", tmp_path / "elsewhere" / "moved.csv")
    moved, ended = evaluated(run, tmp_path, "--data.path", tmp_path / "elsewhere" / "moved.csv")
    assert moved == there
    assert "18 rows of the test split" in ended.out
    refused(
        call("train", "--resume", run, "--max_epochs", "3"),
        ["data.csv", "not the file", "--data.path"],
    )
    table(seed=1).to_csv(tmp_path / "other.csv", index=False)
    refused(
        call("train", "--resume", run, "--max_epochs", "3", "--data.path", tmp_path / "other.csv"),
        ["other.csv", "other rows"],
    )
    ended = call(
        "train",
        "--resume",
        run,
        "--max_epochs",
        "3",
        "--data.path",
        tmp_path / "elsewhere" / "moved.csv",
    )
    assert ended.code == 0, ended
    assert json.loads((Path(run) / "run.json").read_text())["sessions"][-1]["status"] == "finished"


def test_prediction_says_which_rows_were_trained_on(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path)
    frame, ended = predicted(run, tmp_path)
    assert frame["id"].tolist() == table()["name"].tolist()
    assert frame["split"].value_counts().to_dict() == {"train": 84, "val": 18, "test": 18}
    assert "84 train" in ended.err
    tested, _ = predicted(run, tmp_path, "--split", "test")
    assert tested["id"].tolist() == frame["id"][frame["split"] == "test"].tolist()
    truth = table().set_index("name")["y"]
    assert tested["true.y"].tolist() == truth[tested["id"]].tolist()
    found, _ = evaluated(run, tmp_path)
    assert found["test/y/accuracy"] == pytest.approx((tested["y"] == tested["true.y"]).mean())


def test_prediction_needs_inputs_alone_and_says_what_it_does_not_know(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path, "--data.categorical", "[home]", drop="[side]")
    new = table(4, seed=9)[["x", "color", "home"]]
    new.assign(color=["red", "green", "green", ""]).to_csv(tmp_path / "new.csv", index=False)
    frame, ended = predicted(run, tmp_path, "--data.path", tmp_path / "new.csv")
    assert frame["id"].tolist() == ["1", "2", "3", "4"]
    assert "2 of 4 rows have a 'color' that training did not know, such as 'green'" in ended.err
    assert frame["y.p_yes"].astype(float).between(0, 1).all()
    new.drop(columns="x").to_csv(tmp_path / "new.csv", index=False)
    words = (
        "predict",
        "--run",
        run,
        "--data.path",
        tmp_path / "new.csv",
        "--out",
        tmp_path / "q.csv",
    )
    refused(call(*words), ["new.csv", "input column 'x'", "--allow_missing"])
    ended = call(*words, "--allow_missing")
    assert ended.code == 0
    assert "lacks x, taken for missing in each row" in ended.err


def test_words_and_codes_mean_the_same_in_every_file(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=120).round(3)
    codes = np.array(["01", "02", "A1"])[rng.integers(3, size=120)]
    y = x + np.select([codes == "01", codes == "02"], [3, -3], 0)
    pd.DataFrame({"dept": codes, "x": x, "z": y}).to_csv(tmp_path / "data.csv", index=False)
    flags = ["--max_epochs", "40", "--lr", "0.01"]
    ended = call(
        *(
            "train",
            "--data",
            "Table",
            "--data.path",
            tmp_path / "data.csv",
            "--data.targets",
            "[z]",
            "--logs",
            tmp_path / "logs",
        ),
        *("--name", "run", *SMALL, *flags),
    )
    assert ended.code == 0, ended
    run = str(next((tmp_path / "logs" / "run").iterdir()))
    (tmp_path / "two.csv").write_text("dept,x\n01,0.5\n02,0.5\n")
    (tmp_path / "three.csv").write_text("dept,x\n01,0.5\n02,0.5\nA1,0.5\n")
    two, _ = predicted(run, tmp_path, "--data.path", tmp_path / "two.csv")
    three, _ = predicted(run, tmp_path, "--data.path", tmp_path / "three.csv")
    assert two["z"].tolist() == three["z"].tolist()[:2]
    assert float(two["z"][0]) - float(two["z"][1]) == pytest.approx(6, abs=1.5)


def test_numbers_that_no_network_holds_are_named(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path)
    for number in ("9.969209968386869e+36", "1e60", "-1.7976931348623157e+308", "inf"):
        (tmp_path / "new.csv").write_text(f"x,color\n0.5,red\n{number},blue\n")
        ended = call(
            "predict",
            "--run",
            run,
            "--data.path",
            tmp_path / "new.csv",
            "--out",
            tmp_path / "q.csv",
        )
        refused(ended, ["new.csv row 2", "column 'x'", "not finite"])
        assert not (tmp_path / "q.csv").exists()


def test_no_result_overwrites_what_a_run_needs(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path)
    table(5, seed=3).to_csv(tmp_path / "new.csv", index=False)
    (tmp_path / "old.csv").write_text("mine\n")
    content = {name: (tmp_path / name).read_bytes() for name in ("data.csv", "new.csv", "old.csv")}
    flags = ["--run", run, "--data.path", tmp_path / "new.csv", "--out"]
    for name in ("data.csv", "new.csv"):
        for more in ([], ["--overwrite"]):
            refused(
                call("predict", *flags, tmp_path / name, *more),
                [name, "belongs to the run or to its data"],
            )
    (tmp_path / "link.csv").symlink_to(tmp_path / "data.csv")
    refused(
        call("predict", *flags, tmp_path / "link.csv", "--overwrite"),
        ["link.csv", "belongs to the run"],
    )
    refused(call("predict", *flags, tmp_path / "old.csv"), ["old.csv", "--overwrite"])
    refused(
        call("evaluate", "--run", run, "--out", f"{run}/metrics.json", "--overwrite"),
        ["metrics.json", "belongs to the run"],
    )
    assert {name: (tmp_path / name).read_bytes() for name in content} == content
    assert call("predict", *flags, tmp_path / "old.csv", "--overwrite").code == 0
    assert len(pd.read_csv(tmp_path / "old.csv")) == 5
    assert not [path for path in tmp_path.iterdir() if "unfinished" in path.name]


def test_a_task_that_is_called_id_and_ids_with_gaps(tmp_path):
    frame = table().assign(id=table()["x"] * 2, split=1 + table()["x"])[
        ["x", "color", "id", "split", "name"]
    ]
    frame.loc[3, "name"] = None
    frame.to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path, targets="[id, split]", drop="[]")
    found, _ = predicted(run, tmp_path)
    assert found.columns.tolist() == ["_id", "_split", "id", "split"]
    assert found["_id"].tolist() == frame["name"].fillna("").tolist()
    tested, _ = predicted(run, tmp_path, "--split", "test")
    rows = (found["_split"] == "test").to_numpy()
    assert tested["true.id"].astype(float).tolist() == frame["id"][rows].tolist()


def test_the_same_rows_are_tested_whatever_the_targets(tmp_path):
    rng = np.random.default_rng(0)
    frame = table(650).assign(
        a=rng.choice(["u", "v"], 650, p=[0.9, 0.1]),
        b=rng.normal(size=650).round(2),
        c=rng.integers(0, 4, 650),
    )
    frame.to_csv(tmp_path / "data.csv", index=False)
    tested = []
    for targets in ("[a]", "[a, b, c]", "[y]"):
        run = trained(tmp_path, targets=targets, drop="[home, side]")
        found, _ = predicted(run, tmp_path, "--split", "test")
        tested.append(found["id"].tolist())
        shutil.rmtree(tmp_path / "logs")
    assert tested[0] == tested[1] == tested[2]
    assert abs(len(tested[0]) - 97.5) <= 2


def test_predictions_of_training_rows_alone_say_so(tmp_path):
    """Where validation and test rows lie in files of their own, each row of the first file is a
    training row.
    """
    table().to_csv(tmp_path / "data.csv", index=False)
    for seed, name in ((1, "val"), (2, "test")):
        table(20, seed).to_csv(tmp_path / f"{name}.csv", index=False)
    run = trained(
        tmp_path, "--data.val_path", "{here}/val.csv", "--data.test_path", "{here}/test.csv"
    )
    ended = call("predict", "--run", run, "--out", tmp_path / "p.csv")
    assert (
        "note: these are the rows of the run itself, and it was trained on some of them: 120 train"
        in ended.err
    )
    ended = call("predict", "--run", run, "--out", tmp_path / "q.csv", "--split", "train")
    assert ended.err == ""


def test_labels_of_0_and_1_stand_beside_predictions_as_whole_numbers(tmp_path):
    frame = table()
    yes = (frame["y"] == "yes").astype(int)
    frame["y"], frame["a"], frame["b"] = (
        yes.where(frame.index % 3 != 0).astype("Int64"),
        yes,
        1 - yes,
    )
    frame.loc[::4, "a"] = pd.NA
    frame["a"] = frame["a"].astype("Int64")
    frame.to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path, targets="{y: y, tags: [a, b]}")
    assert call("predict", "--run", run, "--out", tmp_path / "p.csv", "--split", "train").code == 0
    found = pd.read_csv(tmp_path / "p.csv", dtype=str).set_index("id")
    wanted = frame.astype(str).replace("<NA>", np.nan).set_index("name").loc[found.index]
    for column, truth in (("y", "true.y"), ("a", "true.tags.a"), ("b", "true.tags.b")):
        assert found[truth].equals(wanted[column].rename(truth)), column


def test_a_run_that_has_lost_its_schema_does_not_split_anew(tmp_path):
    table().to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path)
    (Path(run) / "schema.json").unlink()
    for verb, *flags in (
        ("evaluate", "--run"),
        ("predict", "--out", tmp_path / "p.csv", "--run"),
        ("train", "--resume"),
    ):
        refused(call(verb, *flags, run), ["schema.json is gone", "restore it"])
    assert not (Path(run) / "schema.json").exists()


def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(tmp_path):
    names = ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "\t=1", "plain", "-x", "a=b"]
    frame = table()
    frame["name"] = [f"{name}{i}" if name == "a=b" else name for i, name in enumerate(names * 15)]
    frame["y"] = frame["y"].map({"yes": "=yes", "no": "-1"})
    frame.to_csv(tmp_path / "data.csv", index=False)
    run = trained(tmp_path)
    plain, ended = predicted(run, tmp_path, "--raw")
    assert "apostrophe" not in ended.err
    safe, ended = predicted(run, tmp_path)
    changed = plain["id"].isin(
        ["=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-x"]
    )  # a tab in front is no part of a cell
    number = changed.sum() + (plain["id"] == "=1").sum() + (plain["y"] == "=yes").sum()
    assert f"{number} cells" in ended.err
    assert (safe["id"][changed] == "'" + plain["id"][changed]).all()
    assert set(safe["id"]) >= {"-2", "plain"}
    assert set(safe["y"]) <= {"'=yes", "-1"}
    assert list(safe.columns) == list(plain.columns)
    sheet = tmp_path / "p.parquet"
    assert call("predict", "--run", run, "--out", sheet).code == 0
    assert (pd.read_parquet(sheet)["id"] == plain["id"]).all()
