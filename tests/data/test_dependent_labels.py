"""Tables whose tasks depend on one another."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from src.cli.reference_rows import read_rows
from src.data import Sources, Table
from src.data.dependent_labels import describe_dependence
from src.errors import UserError
from src.tasks import is_labelled

N = 100


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(N, 2)).round(3), columns=["x", "y"])
    frame["clicked"] = np.where(rng.random(N) < 0.5, "yes", "no")
    frame["bought"] = np.where(rng.random(N) < 0.4, 1, 0)
    frame["price"] = rng.normal(size=N).round(3)
    file = tmp_path / "shop.csv"
    frame.to_csv(file, index=False)
    return str(file)


def table_of(path, **tasks):
    return Table(path, ["clicked", "bought", "price"], tasks=tasks)


ENTIRE = {"depends_on": "clicked", "entire_space": True}


def test_labels_of_a_table_count_where_another_is_positive(path):
    table = table_of(path, price={"where": "clicked"})
    train = table.split("train")
    clicked = train.targets["clicked"] == 1
    found = read_rows(table, "train", with_inputs=False).targets["price"]
    assert torch.equal(is_labelled(found), clicked)
    line = f"task price: counts where clicked is yes, {clicked.sum()} of {len(train)} rows"
    assert line in table.notes()
    # files of predictions show the labels as they are read
    assert None not in table.truth("train")["price"][""]


def test_the_entire_space_has_a_label_in_each_row(path):
    table = table_of(path, bought=ENTIRE)
    train = table.split("train")
    clicked, bought = train.targets["clicked"], train.targets["bought"]
    found = read_rows(table, "train", with_inputs=False).targets["bought"]
    assert torch.equal(found, clicked * bought)
    turned = int((bought * (1 - clicked)).sum())
    assert describe_dependence(table.tasks, train.targets) == [
        f"task bought: p(clicked) p(bought | clicked), {len(train)} of {len(train)} rows count; "
        f"{turned} of them are positive without clicked, and count as negative"
    ]


def test_a_schema_keeps_what_tasks_depend_on(path, tmp_path):
    schema = tmp_path / "schema.json"
    tasks = {"bought": ENTIRE, "price": {"where": "clicked=no"}}
    schema.write_text(json.dumps(table_of(path, **tasks).schema()))
    again = Table(path, schema_path=str(schema)).tasks
    assert (again["bought"].depends_on, again["bought"].entire_space) == ("clicked", True)
    assert again["price"].where == "clicked=no"


def test_names_of_sources_are_put_before_those_of_tasks(path):
    sources = Sources({"a": table_of(path, bought=ENTIRE), "b": table_of(path)}, prefix=True)
    assert sources.tasks["a-bought"].depends_on == "a-clicked"
    (batch,) = list(sources.val_dataloader())
    here = is_labelled(batch.targets["a-clicked"])
    wrong = (batch.targets["a-bought"] == 1) & (batch.targets["a-clicked"] == 0)
    assert here.any() and not wrong.any()
    assert ((batch.targets["b-bought"] == 1) & (batch.targets["b-clicked"] == 0)).any()


def test_what_a_task_depends_on_must_be_there(path):
    with pytest.raises(UserError, match="task 'price': where names 'click', which is no task"):
        table_of(path, price={"where": "click"}).notes()
