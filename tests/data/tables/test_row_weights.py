"""Weights of a table's rows, from columns of its file."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from src.cli.reference_rows import read_rows
from src.data import Table
from src.data.tables.row_weights import describe_weights
from src.errors import UserError
from src.tasks import is_labelled
from tests.cli.calling import call

N = 90
TARGETS = ["rich", "hours"]


def rows():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(N, 2)).round(3), columns=["x", "y"])
    frame["rich"] = np.where(frame.x + rng.normal(size=N) > 0, "yes", "no")
    frame["hours"] = (40 + 5 * frame.y + rng.normal(size=N)).round(2)
    frame["w"] = rng.exponential(size=N).round(3) + 0.1
    frame["own"] = rng.integers(0, 3, N)
    return frame


def saved(frame, folder, name="rows.csv"):
    frame.to_csv(folder / name, index=False)
    return str(folder / name)


def table_of(path, **settings):
    given = {"row_weight": "w", "tasks": {"hours": {"row_weight": "own"}}}
    return Table(path, TARGETS, **given | settings)


def test_all_tasks_or_one_have_a_column_of_weights(tmp_path):
    frame = rows()
    table = table_of(saved(frame, tmp_path))
    batch = table.split("train")[torch.arange(20)]
    where = table.rows["train"][:20]
    assert batch.weights["rich"].tolist() == pytest.approx(frame.w[where].tolist())
    assert batch.weights["hours"].tolist() == frame.own[where].tolist()
    # the columns are no inputs, and a row of weight 0 has no label
    assert [column.column for column in table.columns] == ["x", "y"]
    known = is_labelled(batch.targets["hours"])
    assert known.tolist() == (frame.own[where] > 0).tolist()
    assert is_labelled(batch.targets["rich"]).all()

    first, second = describe_weights(table)
    train = frame.w[table.rows["train"]]
    assert first == (
        "task rich: rows weigh as column 'w' says in its loss and metrics "
        f"({train.min():g} to {train.max():g} in training rows)"
    )
    assert second.startswith("task hours: rows weigh as column 'own' says")
    assert set(describe_weights(table)) <= set(table.notes())


def test_without_the_setting_there_are_no_weights(tmp_path):
    table = Table(saved(rows(), tmp_path), TARGETS)
    assert table.split("train")[torch.arange(3)].weights == {}
    assert describe_weights(table) == []
    assert read_rows(table, "train", with_inputs=False).weights == {}


def test_added_metrics_are_named_that_count_rows_alike(tmp_path):
    table = table_of(saved(rows(), tmp_path), tasks={"rich": {"metrics": ["CohenKappa"]}})
    first, _ = describe_weights(table)
    assert first.endswith("; CohenKappa counts all rows alike")


def test_references_read_weights(tmp_path):
    table = table_of(saved(rows(), tmp_path))
    found = read_rows(table, "val", with_inputs=False)
    for name in TARGETS:
        wanted = table.split("val").weights[name]
        assert torch.equal(found.weights_of(name), wanted)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("w", -0.5, "row 4: row_weight 'w' is below 0; weights start at 0"),
        ("w", None, "row 4: row_weight 'w' is missing; 0 leaves the row out"),
        ("w", np.inf, "row 4: row_weight 'w' holds inf, which is not finite"),
        ("own", "many", "row 4: row_weight 'own' holds 'many' where a number is expected"),
    ],
)
def test_a_wrong_weight_is_named_with_its_row(tmp_path, column, value, words):
    frame = rows().astype({"w": object, "own": object})
    frame.loc[3, column] = value
    with pytest.raises(UserError, match=words):
        table_of(saved(frame, tmp_path)).notes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"row_weight": "ww"}, "data.row_weight names 'ww', which is no column: did you mean 'w'"),
        ({"tasks": {"hours": {"row_weight": "W2"}}}, "data.tasks.hours.row_weight names 'W2'"),
        ({"inputs": ["x", "w"]}, "data.inputs names 'w', which holds weights of rows"),
        ({"row_weight": "hours"}, "data.targets names 'hours', which holds weights of rows"),
    ],
)
def test_wrong_settings(tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        table_of(saved(rows(), tmp_path), **settings).notes()


def test_a_task_without_a_row_that_weighs(tmp_path):
    frame = rows()
    frame["own"] = 0
    with pytest.raises(UserError, match="no training row of task 'hours' has a label and a weight"):
        table_of(saved(frame, tmp_path)).notes()


def test_a_run_keeps_its_columns_of_weights(tmp_path):
    frame = rows()
    path = saved(frame, tmp_path)
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(table_of(path).schema()))
    again = Table(path, schema_path=str(schema))
    assert torch.equal(
        again.split("val").weights["rich"], table_of(path).split("val").weights["rich"]
    )

    # new rows without the columns are predicted, but not evaluated
    other = saved(frame.drop(columns=["w", "own"]).iloc[::-1], tmp_path, "new.csv")
    new = Table(other, schema_path=str(schema))
    assert len(new.split("predict")) == N
    with pytest.raises(UserError, match="lacks the column 'w', the row_weight of task 'rich'"):
        new.split("test")


def test_a_run_from_the_command_line_is_evaluated_as_it_was_tested(tmp_path):
    path = saved(rows(), tmp_path)
    flags = ("--data", "Table", "--data.path", path, "--data.targets", "[rich,hours]")
    weights = ("--data.row_weight", "w", "--data.tasks.hours.row_weight", "own")
    small = ("--model.encoder.width", 8, "--trainer.max_epochs", 1, "--logs", tmp_path / "logs")
    ended = call("train", *flags, *weights, *small, "--name", "run")
    assert ended.code in (0, None), ended.err
    (run,) = (tmp_path / "logs" / "run").iterdir()
    tested = json.loads((run / "metrics.json").read_text())
    ended = call("evaluate", "--run", run, "--out", tmp_path / "again.json")
    assert ended.code in (0, None), ended.err
    again = json.loads((tmp_path / "again.json").read_text())
    for name, value in again.items():
        assert tested["test"][name] == pytest.approx(value, rel=1e-6, nan_ok=True)
