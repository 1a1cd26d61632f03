"""The audit of shift as the command prints and writes it."""

import json

import pytest

from tests.cli.calling import call, columns, refused, table, words_for_table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on 300 rows."""
    folder = tmp_path_factory.mktemp("shift")
    (folder / "table.csv").write_text(table(300))
    ended = call("train", *words_for_table(folder), "--no_test", "--name", "run")
    assert ended.code == 0, ended.err
    return next((folder / "logs" / "run").iterdir())


def audit(run, out, *words):
    """Calls the part of the audit; returns how it ended, and what it wrote."""
    ended = call("audit", "--run", run, "--only", "[shift]", "--out", out, *words)
    assert ended.code == 0, ended.err
    path = out / "shift.json"
    return ended, json.loads(path.read_text()) if path.is_file() else None


def test_rows_of_the_run_are_alike(run, tmp_path):
    ended, found = audit(run, tmp_path)
    assert "no shift is found" in ended.out
    assert not found["two_sample_test"]["alarms"]
    assert not any(one["beyond_chance"] for one in found["columns"])
    assert {one["column"] for one in found["columns"]} == {"age", "city", "grade"}
    assert found["predictions_beside"] == "val"
    assert {"income", "hours"} <= {one["column"] for one in found["predictions"]}


def test_new_rows_need_no_labels_and_planted_shifts_are_found(run, tmp_path):
    ages = [age + 25 for age in columns(200)["age"]]
    cities = [None if i % 2 else city for i, city in enumerate(columns(200)["city"])]
    path = tmp_path / "new.csv"
    path.write_text(table(200, without=("income", "hours", "stage"), age=ages, city=cities))
    ended, found = audit(run, tmp_path / "out", "--data.path", path)
    assert "the rows differ from those of training" in ended.out
    assert found["rows"] == 200
    by_name = {one["column"]: one for one in found["columns"]}
    assert by_name["age"]["beyond_chance"]
    assert by_name["age"]["mean_difference"] > 1.5
    # a missing city is a word that training did not have
    assert by_name["city"]["unseen"] == 0.5
    assert by_name["city"]["beyond_chance"]
    assert not by_name["grade"]["beyond_chance"]
    # in years, not in standard deviations
    before, after = (float(word) for word in by_name["age"]["words"].split()[1::2])
    assert after - before == pytest.approx(25, abs=3)


def test_the_training_rows_are_not_compared_with_themselves(run, tmp_path):
    ended, found = audit(run, tmp_path, "--split", "train")
    assert found is None
    assert "shift compares rows with the training rows" in ended.err


def test_validation_rows_are_compared_with_predictions_of_test_rows(run, tmp_path):
    _, found = audit(run, tmp_path, "--split", "val")
    assert found["predictions_beside"] == "test"


def test_few_rows_have_distances_and_no_test(run, tmp_path):
    path = tmp_path / "new.csv"
    path.write_text(table(8, without=("income", "hours")))
    ended, found = audit(run, tmp_path / "out", "--data.path", path)
    assert found["two_sample_test"] is None
    assert "the two-sample test needs 20 rows of each side" in ended.err
    assert len(found["columns"]) == 3


def test_training_rows_that_are_gone_are_said_in_one_line(run, tmp_path):
    moved = run.parents[2] / "table.csv"
    kept = moved.read_text()
    path = tmp_path / "new.csv"
    path.write_text(table(40))
    moved.unlink()
    try:
        refused(
            call("audit", "--run", run, "--only", "[shift]", "--data.path", path),
            ["shift needs the rows that the run was trained on"],
        )
    finally:
        moved.write_text(kept)
