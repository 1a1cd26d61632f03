"""Groups of people from the columns of a table, in its rows, its notes and a run's schema."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from src.batch import SENSITIVE
from src.data import Table
from src.errors import UserError
from src.files.typed import Damaged
from tests.cli.calling import call

N = 120


def make_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(N, 2)).round(3), columns=["x", "y"])
    frame["rich"] = np.where(frame.x + rng.normal(size=N) > 0, "yes", "no")
    frame["hours"] = (40 + 5 * frame.y + rng.normal(size=N)).round(2)
    frame["sex"] = rng.choice(["f", "m"], N)
    frame["race"] = rng.choice(["b", "w"], N)
    frame.loc[::9, "race"] = None
    frame["one"] = "same"
    return frame


def save(frame: pd.DataFrame, folder: Path, name: str = "rows.csv") -> str:
    frame.to_csv(folder / name, index=False)
    return str(folder / name)


def open_table(path: str, **settings: Any) -> Table:
    return Table(path, ["rich", "hours"], **settings)


def test_rows_carry_the_number_of_their_group(tmp_path: Path) -> None:
    frame = make_frame()
    table = open_table(save(frame, tmp_path), sensitive=["sex", "race"], drop=["sex"])
    names = ("f, b", "f, w", "f, (missing)", "m, b", "m, w", "m, (missing)")
    assert table.sensitive_groups == names
    for split in ("train", "val", "test"):
        rows = table.split(split)
        codes = rows[torch.arange(len(rows))].extras[SENSITIVE]
        where = frame.iloc[table.rows[split]]
        words = [
            f"{s}, {r}" for s, r in zip(where.sex, where.race.fillna("(missing)"), strict=True)
        ]
        assert [names[code] for code in codes] == words
    # dropping one of the columns makes it no input, naming it for groups does not
    sources = {column.source for column in table.columns}
    assert "race" in sources
    assert "sex" not in sources
    (note,) = [line for line in table.notes() if line.startswith("groups by sex, race")]
    assert "race is an input, too, unless data.drop or data.inputs says otherwise" in note


def test_groups_are_of_training_rows_and_others_are_in_none(tmp_path: Path) -> None:
    frame = make_frame()
    frame["side"] = ["train"] * 80 + ["val"] * 20 + ["test"] * 20
    frame.loc[85, "sex"] = "x"
    path = save(frame, tmp_path)
    table = open_table(path, sensitive=["sex"], split_column="side")
    codes = table.split("val").extras[SENSITIVE]
    assert int(codes[5]) < 0
    assert (codes >= 0).sum() == 19


def test_a_schema_keeps_the_groups(tmp_path: Path) -> None:
    path = save(make_frame(), tmp_path)
    table = open_table(path, sensitive=["race"], drop=["race"])
    (tmp_path / "schema.json").write_text(json.dumps(table.schema()))
    again = open_table(path, sensitive=["race"], schema_path=str(tmp_path / "schema.json"))
    assert again.sensitive_groups == ("b", "w", "(missing)")
    assert torch.equal(
        again.split("train").extras[SENSITIVE], table.split("train").extras[SENSITIVE]
    )
    # without groups a schema is as it was
    assert "sensitive" not in open_table(path).schema()

    damaged = table.schema() | {"sensitive": {"columns": ["race"], "groups": [["b"]]}}
    (tmp_path / "schema.json").write_text(json.dumps(damaged))
    with pytest.raises(Damaged, match=r"sensitive.groups is \[\['b'\]\]"):
        open_table(path, schema_path=str(tmp_path / "schema.json"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["sexx"], "data.sensitive names 'sexx', which is no column: did you mean 'sex'"),
        (["one"], r"data.sensitive \[one\] makes one group of the training rows"),
        (["x"], r"data.sensitive \[x\] makes \d+ groups of the training rows, and at most 64"),
    ],
)
def test_columns_that_make_no_groups_are_refused(
    columns: list[str], message: str, tmp_path: Path
) -> None:
    table = open_table(save(make_frame(), tmp_path), sensitive=columns)
    with pytest.raises(UserError, match=message):
        _ = table.sensitive_groups


def test_a_fair_run_is_evaluated_and_predicts_rows_without_the_column(tmp_path: Path) -> None:
    frame = make_frame()
    path = save(frame, tmp_path)
    flags = ("--data", "Table", "--data.path", path, "--data.targets", "[rich,hours]")
    groups = ("--data.sensitive", "[sex]", "--data.drop", "[sex, one]", "--data.batch_size", 32)
    fair = ("--model.fairness", "GroupDRO", "--model.fairness.step_size", 0.5)
    small = ("--model.encoder.width", 8, "--trainer.max_epochs", 2, "--logs", tmp_path / "logs")
    ended = call("train", *flags, *groups, *fair, *small, "--name", "run")
    assert ended.code in (0, None), ended.err
    (run,) = (tmp_path / "logs" / "run").iterdir()
    tested = json.loads((run / "metrics.json").read_text())
    assert tested["test"]["test/rich/loss/f"] > 0

    ended = call("evaluate", "--run", run, "--out", tmp_path / "again.json")
    assert ended.code in (0, None), ended.err
    again = json.loads((tmp_path / "again.json").read_text())
    for name, value in again.items():
        assert tested["test"][name] == pytest.approx(value, rel=1e-6, nan_ok=True)

    new = save(frame.drop(columns="sex").iloc[:40], tmp_path, "new.csv")
    for verb, out in (("evaluate", "new.json"), ("predict", "new_predictions.csv")):
        ended = call(verb, "--run", run, "--data.path", new, "--out", tmp_path / out)
        assert ended.code in (0, None), ended.err
    assert len(pd.read_csv(tmp_path / "new_predictions.csv")) == 40


def test_fairness_without_groups_is_refused_in_a_line(tmp_path: Path) -> None:
    path = save(make_frame(), tmp_path)
    flags = ("--data", "Table", "--data.path", path, "--data.targets", "[rich,hours]")
    ended = call("train", *flags, "--model.fairness", "EqualizedOdds", "--logs", tmp_path / "logs")
    assert ended.code == 2
    assert "name the columns of a table that tell them, --data.sensitive '[COLUMN]'" in ended.err
    ended = call("train", "--data.sensitive", "[sex]", "--logs", tmp_path / "logs")
    assert ended.code == 2
    assert "sensitive" in ended.err
