"""The audit of robustness as the command prints and writes it, on a table of the test itself."""

import json
import sys

import pytest
import torch

from src.batch import InputShape
from src.cli.auditing.robustness_parts import describe_parts
from src.data import MultiTaskDataModule
from src.data.tables.table import Table
from tests.cli.calling import call, columns, refused, table, words_for_table

RUNGS = 1 + 2  # severity 0 and two others


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on numbers with gaps, and words with gaps."""
    folder = tmp_path_factory.mktemp("robustness")
    ages = [None if i % 9 == 4 else age for i, age in enumerate(columns()["age"])]
    cities = [None if i % 11 == 3 else city for i, city in enumerate(columns()["city"])]
    (folder / "table.csv").write_text(table(age=ages, city=cities))
    ended = call("train", *words_for_table(folder), "--no_test", "--name", "run")
    assert ended.code == 0, ended.err
    return next((folder / "logs" / "run").iterdir())


def audit(run, *words):
    """Calls the part of the audit; returns how it ended."""
    small = ("--repeats", 3, "--severities", "[1, 4]", "--attacks", "[0.1]")
    return call("audit", "--run", run, "--only", "[robustness]", *small, *words)


def test_the_command_prints_and_writes_a_ladder(run, tmp_path):
    ended = audit(run, "--out", tmp_path)
    assert ended.code == 0, ended.err
    for word in ("income:", "hours:", "noise", "missing", "swapped", "attack", "severity"):
        assert word in ended.out
    found = json.loads((tmp_path / "robustness.json").read_text())
    kinds = {rung["corruption"] for rung in found["ladder"]}
    assert kinds == {"noise", "missing", "swapped", "attack"}
    assert len(found["ladder"]) == 2 * (3 * RUNGS + 2)
    clean = [rung for rung in found["ladder"] if rung["severity"] == 0]
    assert {rung["fall"] for rung in clean} == {0}
    assert (tmp_path / "robustness.png").stat().st_size > 10_000

    # the scores of the rows as they are are those of evaluate
    tested = call("evaluate", "--run", run, "--out", tmp_path / "metrics.json")
    assert tested.code == 0, tested.err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    scores = {rung["task"]: rung["score"] for rung in clean}
    assert scores["income"] == pytest.approx(metrics["test/income/auroc"], abs=1e-5)


def test_numbers_do_not_depend_on_the_batch_size(run, tmp_path):
    found = []
    for size in (3, 1000):
        ended = audit(run, "--data.eval_batch_size", size, "--out", tmp_path / f"{size}")
        assert ended.code == 0, ended.err
        found.append(json.loads((tmp_path / f"{size}" / "robustness.json").read_text())["ladder"])
    for one, other in zip(*found, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5, nan_ok=True)


def test_what_does_not_suit_is_said_and_left_out(run, tmp_path):
    ended = audit(run, "--corruptions", "[blur, swapped]", "--attacks", "[]", "--out", tmp_path)
    assert ended.code == 0, ended.err
    assert "blur corrupts images, and the inputs have none: it is left out" in ended.err
    assert "attack" not in ended.out


def test_without_captum_the_rest_is_there(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.robust", None)
    ended = audit(run, "--out", tmp_path)
    assert ended.code == 0, ended.err
    assert "pip install captum; the rest is there without them" in ended.err
    assert "noise" in ended.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--corruptions", "[nois]"), "--corruptions names 'nois'; did you mean 'noise'?"),
        (("--severities", "[7]"), "--severities holds 7; they go from 0 to 5"),
        (("--attacks", "[-1]"), "--attacks holds -1"),
        (("--repeats", 1), "--repeats is 1"),
        (("--rows", 0), "--rows is 0"),
    ],
)
def test_bad_settings_are_refused(run, words, says):
    refused(call("audit", "--run", run, "--only", "[robustness]", *words), [says])


def test_new_rows_without_labels_are_left_out_and_with_labels_scored(run, tmp_path):
    path = tmp_path / "new.csv"
    path.write_text(table(30, without=("income", "hours")))
    ended = audit(run, "--data.path", path, "--out", tmp_path)
    assert ended.code == 0, ended.err
    assert "robustness needs labels, and is left out" in ended.err
    assert not (tmp_path / "robustness.json").exists()

    path.write_text(table(30))
    ended = audit(run, "--data.path", path, "--out", tmp_path)
    assert ended.code == 0, ended.err
    assert "robustness on 30 rows" in ended.out


def test_columns_of_a_table_know_their_indicators_words_and_units(run):
    data = Table(path=str(run.parents[2] / "table.csv"), targets=["income", "hours"])
    (part,) = describe_parts(data)
    by_name = {column.name: column for column in part.columns}
    age, city = by_name["age"], by_name["city"]
    assert len(age.numbers) == len(age.indicators) == 1
    assert age.units[0][1] > 1
    assert city.words == ("Lima", "Oslo", "Rome", None)
    assert city.missing_code == 4
    inputs = data.split("train")[torch.arange(5)].inputs
    assert inputs["dense"].shape[1] == len(part.number_places) + sum(
        len(column.indicators) for column in part.columns
    )


def test_inputs_without_names_have_columns_without_missing_values():
    class Plain(MultiTaskDataModule):
        tasks = {}
        input_shape = InputShape((2,), (3,))

        def split(self, name):
            raise NotImplementedError

    (part,) = describe_parts(Plain())
    assert [column.name for column in part.columns] == ["feature 1", "feature 2", "category 1"]
    assert not part.has_missing
