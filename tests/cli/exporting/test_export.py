"""A run becomes a folder whose answers are those of predict, or nothing is left behind."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.cli.calling import call, refused, table

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a table with numbers, words and gaps in both."""
    folder = tmp_path_factory.mktemp("export")
    ages = [None if i % 9 == 4 else 20 + i * 7 % 45 for i in range(60)]
    cities = [None if i % 11 == 3 else ["Rome", "Oslo", "Lima"][i % 3] for i in range(60)]
    (folder / "people.csv").write_text(table(age=ages, city=cities))
    ended = call(
        *("train", "--data", "Table", "--data.path", folder / "people.csv"),
        *("--data.targets", "[income, hours, grade]", "--data.split_column", "stage"),
        *("--max_epochs", 2, "--logs", folder / "logs", "--name", "people"),
        *("--model.encoder.width", 8, "--trainer.enable_progress_bar", "false"),
    )
    assert ended.code == 0, ended.err
    (found,) = (folder / "logs" / "people").iterdir()
    return found


@pytest.fixture(scope="module")
def model(run):
    """The run as ONNX."""
    out = run.parents[2] / "model"
    ended = call("export", "--run", run, "--to", "onnx", "--out", out, "--licence", "CC0")
    assert ended.code == 0, ended.err
    assert "differences from predict on 12 validation rows" in ended.out
    assert "ONNX opset 20, weights in fp32, any number of rows at once" in ended.out
    for task in ("income", "hours", "grade"):
        assert task in ended.out
    return out


@pytest.fixture
def answer(model, monkeypatch):
    """The handler of the folder itself, as AWS Lambda imports it."""
    return import_handler(model, monkeypatch)


def import_handler(folder, monkeypatch):
    for name in ("handler", "rows", "onnx_runtime", "torch_runtime"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    handler = importlib.import_module("handler").handler

    def answer(rows):
        found = handler({"body": json.dumps(rows)}, None)
        return found["statusCode"], json.loads(found["body"])

    return answer


def predicted(run, tmp_path, rows):
    """What predict says of rows: {column: values}."""
    import pandas as pd

    names = ("age", "city")
    lines = [",".join(str("" if r[n] is None else r[n]) for n in names) for r in rows]
    (tmp_path / "new.csv").write_text("\n".join([",".join(names), *lines]) + "\n")
    out = tmp_path / "found.csv"
    ended = call("predict", "--run", run, "--data.path", tmp_path / "new.csv", "--out", out)
    assert ended.code == 0, ended.err
    return pd.read_csv(out).drop(columns="id").to_dict("list")


ROWS = [
    {"age": 33, "city": "Oslo"},
    {"age": "41.5", "city": "Lima"},
    {"age": None, "city": "Rome"},
    {"age": "NA", "city": None},
    {"age": 25.0, "city": "Cairo"},
]


def test_the_folder_has_what_serves_the_model(model):
    names = {path.name for path in model.iterdir()}
    assert names == {
        *("model.onnx", "schema.json", "handler.py", "rows.py", "onnx_runtime.py"),
        *("requirements.txt", "Dockerfile", "card.md"),
    }
    assert "CC0" in (model / "card.md").read_text()
    lines = (model / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in lines] == ["numpy", "onnxruntime"]
    code = "".join(path.read_text() for path in model.glob("*.py"))
    assert "src." not in code
    assert "import torch" not in code
    assert len((model / "handler.py").read_text().splitlines()) < 65
    for name in ("handler.py", "rows.py", "onnx_runtime.py", "schema.json", "model.onnx"):
        assert name in (model / "Dockerfile").read_text()


def test_the_file_says_what_it_takes_and_gives(model):
    import onnx

    found = onnx.load(model / "model.onnx")
    assert [entry.name for entry in found.graph.input] == ["age", "city"]
    outputs = [entry.name for entry in found.graph.output]
    assert outputs[:2] == ["income", "income.p_low"] or outputs[:2] == ["income", "income.p_high"]
    assert outputs[2:] == ["hours", "grade", "grade.p_a", "grade.p_b", "grade.p_c"]
    about = {entry.key: entry.value for entry in found.metadata_props}
    assert about["opset"] == "20"
    assert about["batch"] == "dynamic"
    schema = json.loads((model / "schema.json").read_text())
    assert (schema["opset"], schema["batch"]) == (20, "dynamic")
    assert [entry["name"] for entry in schema["outputs"]] == outputs


def test_answers_are_those_of_predict(run, answer, tmp_path):
    status, body = answer(ROWS)
    assert status == 200
    for name, values in predicted(run, tmp_path, ROWS).items():
        got = [row[name] for row in body["predictions"]]
        if isinstance(values[0], str):
            assert got == values
        else:
            assert got == pytest.approx(values, abs=1e-4)


def test_wrong_calls_have_a_line_each_and_no_traceback(answer):
    status, body = answer([ROWS[0], {"age": "old", "city": "Oslo"}, {"age": 1}, 5])
    assert status == 422
    assert body["errors"] == [
        "row 1: column 'age' holds 'old': a number is expected",
        "row 2: lacks the column 'city'; null says that it is missing",
        "row 3: is no object with a value for each column",
    ]
    for nothing in ([], {}, "text", 5, None, {"rows": []}):
        status, body = answer(nothing)
        assert status == 400
        assert len(body["errors"]) == 1
    assert answer([ROWS[0]] * 10_001)[0] == 400
    assert answer([{**ROWS[0], "city": "x" * 1_000_000}])[0] == 200
    assert answer([{**ROWS[0], **{f"more{k}": k for k in range(1000)}}])[0] == 200


def test_a_damaged_folder_answers_500_without_the_inside(model, tmp_path, monkeypatch, caplog):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "schema.json").write_text('{"format": 1, "inputs": [{"name": "x", "kind": "code"}]}')
    status, body = import_handler(folder, monkeypatch)([ROWS[0]])
    assert (status, body) == (500, {"errors": ["the model failed; the log says why"]})


def test_smaller_weights_are_told_with_what_they_lose(run, tmp_path):
    out = tmp_path / "small"
    ended = call("export", "--run", run, "--to", "onnx", "--quantise", "bf16", "--out", out)
    assert ended.code == 0, ended.err
    assert "score before" in ended.out
    assert "weights in bf16" in ended.out
    assert (out / "model.onnx").stat().st_size > 0


def test_a_program_of_torch_says_the_same(run, tmp_path, monkeypatch):
    out = tmp_path / "program"
    ended = call("export", "--run", run, "--to", "torch", "--out", out)
    assert ended.code == 0, ended.err
    status, body = import_handler(out, monkeypatch)(ROWS)
    assert status == 200
    for name, values in predicted(run, tmp_path, ROWS).items():
        got = [row[name] for row in body["predictions"]]
        if isinstance(values[0], str):
            assert got == values
        else:
            assert got == pytest.approx(values, abs=1e-4)


def test_what_differs_is_refused_and_nothing_is_left_behind(run, tmp_path, monkeypatch):
    monkeypatch.setattr("src.cli.exporting.comparison.TOLERANCE", -1.0)
    ended = call("export", "--run", run, "--to", "torch", "--out", tmp_path / "model")
    refused(ended, ["the exported model differs from predict by", "nothing is written"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--to", "onx"), ["--to is 'onx'", "onnx"]),
        ((), ["to is missing"]),
        (("--to", "onnx", "--quantise", "int4"), ["--quantise is 'int4'", "int8"]),
        (("--to", "torch", "--quantise", "int8"), ["--quantise goes with --to onnx"]),
        (("--to", "onnx", "--coverage", "0.9"), ["has no conformity scores"]),
        (("--to", "onnx", "--sets", "aps"), ["add --coverage 0.9"]),
        (("--to", "onnx", "--preference", "{income: 1}"), ["--preference goes with"]),
        (("--to", "onnx", "--out", "missing/model"), ["there is no folder missing"]),
    ],
    ids=["form", "no form", "quantise", "torch", "coverage", "sets", "preference", "folder"],
)
def test_wrong_flags_are_refused_in_one_line(run, words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(call("export", "--run", run, *words), says)
    assert list(tmp_path.iterdir()) == []


def test_no_folder_is_replaced_that_is_no_export(run, model, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    words = ("export", "--run", run, "--to", "onnx", "--out")
    refused(call(*words, tmp_path), ["the folder holds files"])
    refused(call(*words, tmp_path, "--overwrite", "true"), ["the folder is no export"])
    refused(call(*words, run.parent, "--overwrite", "true"), ["the run or its data lie there"])
    refused(call(*words, tmp_path / "letter.txt"), ["this is a file"])
    refused(call(*words, model), ["add --overwrite"])
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_missing_packages_are_named_in_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ended = call("export", "--run", run, "--to", "onnx", "--out", tmp_path / "model")
    refused(ended, ["pip install onnx onnxscript onnxruntime"])
    assert isinstance(tmp_path, Path)
