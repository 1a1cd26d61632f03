import numpy as np
import pandas as pd
import pytest

from src.data.labels import declared, infer_kind, kind_named, label_values, task_from_plain, with_settings
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression

NAN = float("nan")
KINDS = [
    Classification(classes=("a", "b"), class_weights=(1.0, 2.0)),
    BinaryClassification(classes=(False, True), pos_weight=2.0),
    MultilabelClassification(labels=("a", "b"), pos_weight=(1.0, 2.0)),
    Regression(names=("u", "v"), mean=(0.0, 1.0), std=(1.0, 2.0), loss="huber"),
]


def inferred(**columns):
    frame = pd.DataFrame(columns)
    names = list(columns)
    values = label_values(frame, names, single=len(names) == 1)
    return infer_kind(values, frame, names)


@pytest.mark.parametrize(
    ("values", "kind", "reason"),
    [
        (["yes", "no", None, "no"], BinaryClassification, "two values: no, yes"),
        ([True, False, True], BinaryClassification, "two values: False, True"),
        ([0, 1, None], BinaryClassification, "two values: 0, 1"),
        ([0.5, 1.5, NAN], BinaryClassification, "two values: 0.5, 1.5"),
        (["a", "b", "c"], Classification, "3 values: a, b, c"),
        ([2, 0, 1, 7, None, 4, 5, 6], Classification, "7 whole numbers: 0, 1, 2, 4, 5, ..."),
        (list(range(11)), Regression, "11 different numbers"),
        ([0.5, 1.0, 2.0], Regression, "3 different numbers"),
    ],
)
def test_kind_of_one_column_and_why(values, kind, reason):
    assert inferred(y=values) == (kind, reason)


@pytest.mark.parametrize(
    ("columns", "kind", "reason"),
    [
        ({"a": [0, 1, None], "b": [1, 1, 0]}, MultilabelClassification, "2 columns of 0 and 1"),
        ({"a": [True, False], "b": [True, True]}, MultilabelClassification, "2 columns of 0 and 1"),
        ({"a": [0, 1], "b": [0.5, 3]}, Regression, "2 columns of numbers"),
    ],
)
def test_kind_of_several_columns_and_why(columns, kind, reason):
    assert inferred(**columns) == (kind, reason)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"y": ["a", "a", None]}, "has the single value 'a'"),
        ({"y": [f"text {i}" for i in range(201)]}, "has 201 different texts, too many"),
        ({"a": ["x", "y"], "b": [0, 1]}, "neither all 0 and 1"),
    ],
)
def test_what_fits_no_kind(columns, message):
    with pytest.raises(ValueError, match=message):
        inferred(**columns)


def test_label_values():
    frame = pd.DataFrame({"whole": [1.0, NAN, 3.0], "real": [1.5, NAN, 3], "word": ["a", None, "b"], "flag": [True, False, True]})
    assert label_values(frame, ["whole"], True).tolist() == [1, None, 3]
    assert type(label_values(frame, ["whole"], True)[0]) is int
    np.testing.assert_array_equal(label_values(frame, ["real"], True), [1.5, NAN, 3])
    assert label_values(frame, ["word"], True).tolist() == ["a", None, "b"]
    assert label_values(frame, ["flag"], True).tolist() == [True, False, True]
    np.testing.assert_array_equal(label_values(frame, ["whole", "real"], False), [[1, 1.5], [NAN, NAN], [3, 3]])
    assert label_values(frame, ["whole"], False).shape == (3, 1)
    assert label_values(frame, ["word", "whole"], False).tolist()[0] == ["a", 1]


def test_infinite_labels_are_not_whole():
    assert label_values(pd.DataFrame({"y": [1.0, np.inf]}), ["y"], True).tolist() == [1.0, np.inf]


def test_declared():
    assert declared("Regression") == (Regression, {})
    assert declared("src.tasks.Regression") == (Regression, {})
    assert declared({"weight": 2}) == (None, {"weight": 2})
    assert declared({"class_path": "Regression", "init_args": {"loss": "mae"}}) == (Regression, {"loss": "mae"})
    with pytest.raises(ValueError, match=r"is set to 3"):
        declared(3)
    with pytest.raises(ValueError, match=r"unknown kind 'Regresion': did you mean Regression?"):
        declared("Regresion")


class Ranking(Regression):
    """A kind that somebody wrote."""


def test_a_kind_that_somebody_wrote_is_found_by_name():
    assert kind_named("Ranking") is Ranking


def test_with_settings():
    assert with_settings(Classification, {"classes": ["b", "a"], "weight": 2}) == Classification(classes=("b", "a"), weight=2)
    with pytest.raises(ValueError, match=r"no setting 'lss' as a Regression: did you mean loss?"):
        with_settings(Regression, {"lss": "mae"})
    with pytest.raises(ValueError, match="setting weight 'heavy', where a number"):
        with_settings(Regression, {"weight": "heavy"})
    with pytest.raises(ValueError, match="loss 'mea'"):
        with_settings(Regression, {"loss": "mea"})


@pytest.mark.parametrize("task", KINDS, ids=lambda task: type(task).__name__)
def test_a_task_survives_its_description(task):
    import json

    again = task_from_plain(json.loads(json.dumps(task.describe())))
    assert again == task
