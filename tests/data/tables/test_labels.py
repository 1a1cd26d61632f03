import json

import numpy as np
import pandas as pd
import pytest

from src.data.tables.labels import Labels, holds_codes, infer_kind, read_classes, refuse_mixture
from src.data.tables.number_formats import find_formats
from src.data.tables.numbers import BadValue, NumberFormat
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression

NAN = float("nan")
PLAIN = NumberFormat()


def column(values):
    return (
        pd.Series(values, dtype="str")
        if all(isinstance(v, str) or v is None for v in values)
        else pd.Series(values)
    )


def written(frame):
    return find_formats({name: frame[name] for name in frame}, None, None, True)


def inferred(**columns):
    frame = pd.DataFrame({name: column(values) for name, values in columns.items()})
    return infer_kind(frame, written(frame))


@pytest.mark.parametrize(
    ("values", "kind", "reason"),
    [
        (["yes", "no", None, "no"], BinaryClassification, "two values: no, yes"),
        (["True", "False", "True"], BinaryClassification, "two values: False, True"),
        ([0, 1, None], BinaryClassification, "two values: 0, 1"),
        (["0", "1", None], BinaryClassification, "two values: 0, 1"),
        ([0.5, 1.5, NAN], BinaryClassification, "two values: 0.5, 1.5"),
        (["a", "b", "c"], Classification, "3 values: a, b, c"),
        ([2, 0, 1, 7, None, 4, 5, 6], Classification, "7 whole numbers: 0, 1, 2, 4, 5, ..."),
        (["2", "0", "10"], Classification, "3 whole numbers: 0, 2, 10"),
        (["2.0", "0.0", "10.0"], Classification, "3 whole numbers: 0, 2, 10"),
        (["01", "02", "11"], Classification, "3 values: 01, 02, 11"),
        (["01", "2"], BinaryClassification, "two values: 01, 2"),
        (["1", "2", "unknown"], Classification, "3 values: 1, 2, unknown"),
        (list(range(11)), Regression, "11 different numbers"),
        ([0.5, 1.0, 2.0], Regression, "3 different numbers"),
        (["0,5", "1,25", "-"], BinaryClassification, "two values: 0,5, 1,25"),
        (["0,5", "1,25", "2", "-"], Regression, "3 different numbers"),
        (["1e3", "2e3", "3e3"], Regression, "3 different numbers"),
        (["12 %", "3 %", "7 %"], Regression, "3 different numbers"),
    ],
)
def test_kind_of_one_column_and_why(values, kind, reason):
    assert inferred(y=values) == (kind, reason)


@pytest.mark.parametrize(
    ("columns", "kind", "reason"),
    [
        ({"a": [0, 1, None], "b": [1, 1, 0]}, MultilabelClassification, "2 columns of 0 and 1"),
        (
            {"a": ["0", "1", None], "b": ["1", "-", "0"]},
            MultilabelClassification,
            "2 columns of 0 and 1",
        ),
        (
            {"a": ["True", "False"], "b": ["true", "true"]},
            MultilabelClassification,
            "2 columns of 0 and 1",
        ),
        ({"a": [0, 1], "b": [0.5, 3]}, Regression, "2 columns of numbers"),
        ({"a": ["0,5", "1,5"], "b": ["1.000,5", "3"]}, Regression, "2 columns of numbers"),
    ],
)
def test_kind_of_several_columns_and_why(columns, kind, reason):
    assert inferred(**columns) == (kind, reason)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"y": ["a", "a", None]}, "has the single value 'a'"),
        ({"y": ["1", "-", "-"]}, "has the single value '1'"),
        ({"y": [f"text {i}" for i in range(201)]}, "has 201 different texts, too many"),
        ({"a": ["x", "y"], "b": ["0", "1"]}, "neither all 0 and 1"),
        (
            {"y": ["31/12/2024", "30/12/2024"]},
            "holds dates, which no task predicts: derive a number from it",
        ),
        (
            {"y": list(pd.date_range("2020-01-01", periods=3))},
            "holds dates, which no task predicts",
        ),
        (
            {"y": [f"{i}.5" for i in range(70)] + ["lost"] * 20 + ["gone"] * 10},
            r"holds numbers, but 'lost' and the like in 30% of the rows: "
            r".*--data.missing '\[lost, gone\]'; if not, set its kind",
        ),
    ],
)
def test_what_fits_no_kind(columns, message):
    with pytest.raises(ValueError, match=message):
        inferred(**columns)


def test_few_numbers_among_words_are_words():
    frame = pd.DataFrame({"y": column(["1", "2", "unknown", "3"] * 9)})
    refuse_mixture(
        frame["y"], written(frame)["y"], "elsewhere"
    )  # 3 different numbers are no measurements


# -- labels as tasks take them ---------------------------------------------------------------------
def taken(values, *known):
    return read_classes(column(values), known).tolist()


def test_classes_stay_as_written_unless_all_are_whole_numbers():
    assert taken(["1", "2", None]) == [1, 2, None]
    assert taken(["1.0", "2", None]) == [1, 2, None]
    assert taken([1.0, NAN, 3.0]) == [1, None, 3]
    assert type(taken([1.0, NAN, 3.0])[0]) is int
    assert taken(["01", "1"]) == ["01", "1"]
    assert taken(["1", "2", "unknown"]) == ["1", "2", "unknown"]
    assert taken(["1e5", "2"]) == ["1e5", "2"]
    assert taken(["+1", "-1"]) == [1, -1]
    assert taken([0.5, 1.5]) == ["0.5", "1.5"]


def test_known_classes_are_found_in_other_rows():
    assert taken(["1", "2"], "1", "2", "unknown") == ["1", "2"]
    assert taken([1, 2], "1", "2", "unknown") == ["1", "2"]
    assert taken(["1.0", None], 1, 2) == [1, None]
    assert taken(["+1", "1", "-1.0"], -1, 1) == [1, 1, -1]
    assert taken(["01"], 1, 2) == ["01"]  # which the task will not know
    assert taken(["True", "False"], False, True) == [True, False]
    assert taken(["yes", "nix"], "no", "yes") == ["yes", "nix"]
    assert taken([3.5, 4], 3.5, 4) == [3.5, 4]


def test_codes():
    assert holds_codes(column(["01", "2", None]))
    assert holds_codes(column(["007", "11"]))
    assert not holds_codes(column(["0.5", "0", "10", "-0.1", "0,5"]))
    assert not holds_codes(pd.Series([1, 2]))


def test_labels_of_a_task():
    frame = pd.DataFrame(
        {
            "a": column(["1,5", None, "-"]),
            "b": column(["1", "2", "-3"]),
            "c": column(["x", "-", None]),
        }
    )
    comma = NumberFormat(",")
    np.testing.assert_array_equal(
        Labels(("a",), True, False, (comma,)).values(frame), [1.5, NAN, NAN]
    )
    np.testing.assert_array_equal(
        Labels(("a", "b"), False, False, (comma, PLAIN)).values(frame),
        [[1.5, 1], [NAN, 2], [NAN, -3]],
    )
    assert Labels(("b",), False, False, (PLAIN,)).values(frame).shape == (3, 1)
    assert Labels(("c",), True, True, ()).values(frame).tolist() == [
        "x",
        "-",
        None,
    ]  # among words it is a word
    assert Labels(("b",), True, True, (PLAIN,)).values(frame, (1, 2, -3)).tolist() == [1, 2, -3]
    assert Labels(("a",), True, True, (comma,)).values(frame).tolist() == ["1,5", None, None]
    with pytest.raises(BadValue, match="holds 'x' where a number") as caught:
        Labels(("c",), True, False, (PLAIN,)).values(frame)
    assert caught.value.row == 0


def test_infinite_labels_are_no_classes_and_no_numbers():
    frame = pd.DataFrame({"y": [1.0, np.inf]})
    with pytest.raises(BadValue, match="not finite"):
        Labels(("y",), True, False, (PLAIN,)).values(frame)


@pytest.mark.parametrize(
    "labels",
    [
        Labels(("a", "b"), False, False, (PLAIN, NumberFormat(",", ".", "%"))),
        Labels(("y",), True, True, ()),
    ],
)
def test_how_labels_are_read_survives_json(labels):
    assert Labels.from_plain(json.loads(json.dumps(labels.to_plain()))) == labels
