"""A table that is read as a run read its own."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from src.data import Table
from src.data.tables.columns import Categorical, Numeric
from src.errors import UserError


def write(path: Path, **columns: list[Any]) -> str:
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


@pytest.fixture
def schema(tmp_path: Path) -> str:
    """The schema of a run on a table of 30 rows."""
    path = write(
        tmp_path / "old.csv",
        size=[k * 7 % 11 for k in range(30)],
        colour=[["red", "blue", None][k % 3] for k in range(30)],
        when=[f"20{10 + k % 7}-0{1 + k % 9}-11" for k in range(30)],
        gone=[k * 5 % 13 for k in range(30)],
        y=[float(k * 3 % 17) for k in range(30)],
    )
    table = Table(path, targets=["y"], dates="expand")
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(table.schema()))
    return str(file)


def open_new(tmp_path: Path, schema: str, changed: dict[str, Any] | None = None, **settings: Any):
    columns = {
        "y": [10.0 * k for k in range(20)],
        "colour": [["pink", "blue", "red", "aqua"][k % 4] for k in range(20)],
        "size": [100 + k * 3 % 7 for k in range(20)],
        "when": [f"20{20 + k % 3}-02-0{1 + k % 9}" for k in range(20)],
        "more": [k * 3 % 10 for k in range(20)],
        **(changed or {}),
    }
    path = write(tmp_path / "new.csv", **columns)
    table = Table(path, **{"targets": ["y"], **settings})
    table.start_from(schema, "RUN")
    return table


def test_columns_are_read_as_before_and_in_that_order(tmp_path: Path, schema: str) -> None:
    before = json.loads(Path(schema).read_text())["inputs"]
    table = open_new(tmp_path, schema)
    found = table.schema()["inputs"]
    names = [entry["column"] for entry in found]
    old = [e["column"] for e in before if e["column"] != "gone"]
    assert names == [*old, "more"]
    by_name = {entry["column"]: entry for entry in before}
    for entry in found[:-1]:
        if entry["column"] == "colour":
            assert list(entry["vocabulary"]) == ["blue", "red", None, "aqua", "pink"]
        else:
            assert entry == by_name[entry["column"]]
    (line,) = [note for note in table.notes() if "RUN" in note]
    assert "new: more; gone: gone; with new words: colour (aqua, pink)" in line


def test_settings_go_before_what_a_run_did(tmp_path: Path, schema: str) -> None:
    table = open_new(tmp_path, schema, categorical=["size"], drop=["colour"], dates="expand")
    kinds = {column.column: type(column) for column in table.columns}
    assert kinds["size"] is Categorical
    assert "colour" not in kinds
    table = open_new(tmp_path, schema, inputs=["size"])
    assert [column.column for column in table.columns] == ["size"]
    numeric = table.columns[0]
    assert isinstance(numeric, Numeric)
    assert numeric.mean < 20


def test_a_label_keeps_its_scale_unless_it_is_set(tmp_path: Path, schema: str) -> None:
    before = json.loads(Path(schema).read_text())["tasks"]["y"]["task"]
    task = open_new(tmp_path, schema).tasks["y"]
    assert (task.mean, task.std) == (tuple(before["mean"]), tuple(before["std"]))
    given = {"y": {"class_path": "Regression", "init_args": {"mean": [1.0]}}}
    task = open_new(tmp_path, schema, tasks=given).tasks["y"]
    assert task.mean == (1.0,)
    assert task.std == tuple(before["std"])


def test_a_value_that_the_run_cannot_read_is_named(tmp_path: Path, schema: str) -> None:
    table = open_new(tmp_path, schema, {"size": ["small", "large"] * 10})
    with pytest.raises(UserError, match=r"row \d+: column 'size' .*RUN read it as a numeric col"):
        table.columns  # noqa: B018


def test_a_target_of_the_run_is_no_input_unless_it_is_named(tmp_path: Path, schema: str) -> None:
    new = {"z": [float(k * 5 % 7) for k in range(20)]}
    table = open_new(tmp_path, schema, new, targets=["z"])
    assert "y" not in [column.source for column in table.columns]
    assert table.dropped["y"] == "a target of RUN: --data.inputs reads it"
    assert "dropped y: a target of RUN: --data.inputs reads it" in table.notes()

    named = open_new(tmp_path, schema, new, targets=["z"], inputs=["size", "y"])
    assert [column.source for column in named.columns] == ["size", "y"]


def test_columns_and_targets_of_a_run_on_several_sources(tmp_path: Path, schema: str) -> None:
    one = json.loads(Path(schema).read_text())
    file = tmp_path / "sources.json"
    file.write_text(json.dumps({"sources": {"first": one, "second": one}}))
    alone = open_new(tmp_path, schema)
    for of in (None, "second"):
        table = open_new(tmp_path, schema)
        table.start_from(str(file), "RUN", of)
        assert table.columns == alone.columns
        assert table.tasks == alone.tasks
    with pytest.raises(UserError, match=r"sources.third"):
        open_new(tmp_path, schema).start_from(str(file), "RUN", "third")
