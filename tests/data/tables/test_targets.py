"""Which columns each task predicts, and how their labels are read."""

import numpy as np
import pandas as pd
import pytest
import torch

from src.data import Table
from src.data.tables.targets import (
    add_further_columns,
    describe_positive_class,
    find_columns_of_tasks,
    is_pattern,
    make_task_name,
    match_columns,
    refuse_unknown_settings,
)
from src.errors import UserError
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression

N = 60
COLUMNS = ["Class1", "Class2", "Class10", "y", "we*rd", "a.b"]


def table(folder, targets, tasks=None, *, n=N, **columns):
    frame = pd.DataFrame({"x": [round(i * 0.37 % 1, 3) for i in range(n)], **columns})
    frame.to_csv(folder / "t.csv", index=False)
    return Table(str(folder / "t.csv"), targets, tasks)


def notes(made):
    return "\n".join(made.notes())


# -- names -----------------------------------------------------------------------------------------
def test_patterns():
    assert is_pattern("Class*")
    assert not is_pattern("Class")
    assert match_columns("Class*", COLUMNS) == ["Class1", "Class2", "Class10"]
    assert match_columns("*1*", COLUMNS) == ["Class1", "Class10"]
    assert match_columns("a.*", COLUMNS) == ["a.b"]  # a dot is a dot
    assert match_columns("we*rd", COLUMNS) == ["we*rd"]  # a column of that name comes first
    assert match_columns("none", COLUMNS) == ["none"]  # said later, with the nearest name
    with pytest.raises(
        ValueError, match=r"data.targets has the pattern 'klass\*', which no column fits"
    ):
        match_columns("klass*", COLUMNS)


@pytest.mark.parametrize(
    ("given", "tasks"),
    [
        (["y"], {"y": "y"}),
        (["Class*"], {"Class1": "Class1", "Class2": "Class2", "Class10": "Class10"}),
        ({"all": "Class*"}, {"all": ["Class1", "Class2", "Class10"]}),
        ({"all": ["Class*", "y"]}, {"all": ["Class1", "Class2", "Class10", "y"]}),
        ({"one": "y", "two": ["y", "a.b"]}, {"one": "y", "two": ["y", "a.b"]}),
        (["a.b", "we*rd"], {"a_b": "a.b", "we_rd": "we*rd"}),
    ],
)
def test_columns_of_tasks(given, tasks):
    assert find_columns_of_tasks(given, COLUMNS) == tasks


def test_names_of_tasks():
    assert [
        make_task_name(name) for name in ("is rich?", "a/b", "µ 1", "?", "NO2", "2019", " x ")
    ] == [*("is_rich", "a_b", "µ_1", "task", "NO2", "2019", "x")]
    with pytest.raises(
        ValueError, match=r"differ in punctuation alone: a.b, a/b; give {task: column}"
    ):
        find_columns_of_tasks(["a.b", "a/b"], None)
    with pytest.raises(ValueError, match=r"data.tasks names 'z', which is no target: there are y"):
        refuse_unknown_settings({"z": {}}, {"y": "y"})


def test_a_pattern_makes_a_task_of_each_column_or_one_of_all(tmp_path):
    columns = {f"Class{i}": [(j // i) % 2 for j in range(N)] for i in (1, 2, 3)}
    made = table(tmp_path, ["Class*"], {"Class2": {"weight": 3}}, **columns)
    assert {name: type(task) for name, task in made.tasks.items()} == dict.fromkeys(
        columns, BinaryClassification
    )
    assert made.tasks["Class2"].weight == 3
    assert [column.column for column in made.columns] == ["x"]
    made = table(tmp_path, {"tags": "Class*"}, **columns)
    assert made.tasks == {"tags": MultilabelClassification(labels=tuple(columns))}
    with pytest.raises(ValueError, match=r"t.csv: data.targets has the pattern 'Klass\*'"):
        table(tmp_path, ["Klass*"], **columns).tasks  # noqa: B018
    with pytest.raises(
        ValueError, match=r"data.tasks names 'Class7', which is no target: did you mean 'Class"
    ):
        table(tmp_path, ["Class*"], {"Class7": {"weight": 3}}, **columns).tasks  # noqa: B018


# -- classes ---------------------------------------------------------------------------------------
def test_the_order_given_is_the_order_used_and_the_positive_class_is_said(tmp_path):
    labels = [["low", "high", "high", "high"][i * 7 // 3 % 4] for i in range(N)]
    made = table(tmp_path, ["y"], y=labels)
    assert made.tasks["y"].classes == ("high", "low")
    assert "two values: high, low; positive: low)" in notes(made)
    made = table(tmp_path, ["y"], {"y": {"classes": ["low", "high"]}}, y=labels)
    assert made.tasks["y"].classes == ("low", "high")
    train = np.array(labels)[made.rows["train"]]
    share = (train == "high").mean()
    assert (
        f"positive: high, the majority ({share:.0%}), unless its setting classes is [high, low]"
        in notes(made)
    )
    assert made.split("train").targets["y"].tolist() == (train == "high").tolist()


def test_positive_class_in_words():
    task = BinaryClassification(classes=("no", "yes"))
    assert (
        describe_positive_class(task, np.array(["no", "no", "yes", None], dtype=object))
        == "; positive: yes"
    )
    said = describe_positive_class(task, np.array(["no", "yes", "yes", "yes"], dtype=object))
    assert said == "; positive: yes, the majority (75%), unless its setting classes is [yes, no]"
    assert (
        describe_positive_class(
            Classification(classes=("a", "b")), np.array(["a", "b"], dtype=object)
        )
        == ""
    )


@pytest.mark.parametrize("classes", [[False, True], [0, 1], ["no", "yes"]])
def test_classes_set_by_hand_meet_words_of_the_file(tmp_path, classes):
    made = table(
        tmp_path, ["y"], {"y": {"classes": classes}}, y=[classes[i // 2 % 2] for i in range(N)]
    )
    assert made.tasks["y"].classes == tuple(classes)
    assert made.split("train").targets["y"].tolist() == [
        float(row // 2 % 2) for row in made.rows["train"]
    ]


def test_classes_set_by_hand_that_the_file_does_not_have(tmp_path):
    with pytest.raises(
        ValueError, match=r"t.csv row 1: target 'y' holds the class '01', which the training labels"
    ):
        table(  # noqa: B018
            tmp_path, ["y"], {"y": {"classes": [1, 2]}}, y=[["01", "02"][i % 2] for i in range(N)]
        ).tasks


def test_classes_that_differ_in_case_are_two_and_noted(tmp_path):
    made = table(tmp_path, ["y"], y=[["High", "high", "low"][i % 3] for i in range(N)])
    assert made.tasks["y"].classes == ("High", "high", "low")
    assert "target 'y': 'High' and 'high' differ in case alone, and count as two values" in notes(
        made
    )


def test_whole_numbers_as_classes_and_as_numbers(tmp_path):
    stars = [i % 5 for i in range(N)]
    made = table(tmp_path, ["y"], y=stars)
    assert made.tasks["y"] == Classification(classes=(0, 1, 2, 3, 4))
    made = table(tmp_path, ["y"], {"y": "Regression"}, y=stars)
    assert isinstance(made.tasks["y"], Regression)
    assert made.truth("test")["y"][""] == [stars[row] for row in made.rows["test"]]


# -- numbers ---------------------------------------------------------------------------------------
def test_a_target_in_another_notation_is_said_and_read(tmp_path):
    numbers = [1000 + i * 37.25 for i in range(N)]
    written = [f"{x:,.2f} €".translate(str.maketrans(",.", ".,")) for x in numbers]
    made = table(tmp_path, ["y"], y=written)
    assert isinstance(made.tasks["y"], Regression)
    assert made.tasks["y"].mean[0] == pytest.approx(
        np.mean([numbers[row] for row in made.rows["train"]])
    )
    assert "target 'y': '.' between thousands and a decimal ',' and the unit '€' left out" in notes(
        made
    )


def test_a_slip_in_a_target_names_the_row_wherever_it_stands(tmp_path):
    numbers = [str(i * 1.25) for i in range(N)]
    rows = table(tmp_path, ["y"], y=numbers).rows
    for side in ("train", "test"):
        row = int(rows[side][1])
        slip = [*numbers[:row], "tall", *numbers[row + 1 :]]
        with pytest.raises(
            ValueError,
            match=rf"t.csv row {row + 1}: (column|target) 'y' holds 'tall' "
            "where a number is expected",
        ):
            table(tmp_path, ["y"], y=slip).tasks  # noqa: B018


def test_an_infinite_label_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"t.csv row \d+: target 'y' holds inf, which is not finite"
    ):
        table(tmp_path, ["y"], y=[*range(N - 30), *["inf"] * 30]).tasks  # noqa: B018


# -- labels of several columns ---------------------------------------------------------------------
def test_an_exposure_is_a_column_of_the_label():
    settings = {"visits": {"class_path": "Counts", "offset": "days"}}
    found = {"visits": "visits", "y": "y"}
    assert add_further_columns(found, settings) == {"visits": ["visits", "days"], "y": "y"}
    given = {"visits": ["visits", "days"]}
    assert add_further_columns(given, settings) == given


def test_counts_with_an_exposure(tmp_path):
    settings = {"visits": {"class_path": "Counts", "offset": "days"}}
    numbers = {"visits": [i % 7 for i in range(N)], "days": [1 + i % 5 for i in range(N)]}
    made = table(tmp_path, ["visits"], settings, **numbers)
    assert [column.column for column in made.columns] == ["x"]
    task = made.tasks["visits"]
    targets = made.encode_targets_of("train", "visits")
    np.testing.assert_allclose(targets[:, 0], numbers["visits"])
    np.testing.assert_allclose(targets[:, 1] / task.rate, numbers["days"], rtol=1e-6)
    labels = made.truth("train")["visits"]
    assert list(labels) == ["", "days"]
    assert all(isinstance(count, int) for count in labels[""])
    settings["visits"]["offset"] = "dayz"
    wrong = table(tmp_path, ["visits"], settings, **numbers)
    with pytest.raises(UserError, match=r"data.tasks.visits.offset names 'dayz'.*'days'"):
        _ = wrong.main


@pytest.mark.parametrize(("event", "other"), [(True, False), ("yes", "no"), (1, 0)])
def test_survival_reads_a_time_and_an_event(tmp_path, event, other):
    columns = {
        "days": [round(1 + i * 0.31 % 5, 2) for i in range(N)],
        "died": [event if i % 3 else other for i in range(N)],
    }
    settings = {"death": {"class_path": "Survival", "intervals": 4}}
    made = table(tmp_path, {"death": ["days", "died"]}, settings, **columns)
    targets = made.encode_targets_of("train", "death")
    np.testing.assert_allclose(targets[:, 0], columns["days"], rtol=1e-6)
    assert targets[:, 1].tolist() == [float(i % 3 > 0) for i in range(N)]
    frame = pd.DataFrame({"x": np.arange(N) * 0.37 % 1, **columns})
    frame.to_parquet(tmp_path / "t.parquet")
    typed = Table(str(tmp_path / "t.parquet"), {"death": ["days", "died"]}, settings)
    assert torch.equal(typed.encode_targets_of("train", "death")[:, :2], targets[:, :2])
    assert list(made.truth("val")["death"]) == ["days", "died"]


def test_a_slip_is_no_slip_where_the_labels_are_said_to_be_classes(tmp_path):
    values = [*(str(i % 5) for i in range(N - 1)), "many"]
    made = table(tmp_path, ["y"], {"y": "Classification"}, y=values)
    assert "many" in made.tasks["y"].classes
