"""Rows as people write them are read as the house's own encoders read them."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.tables.columns import Categorical, Numeric
from src.data.tables.dates import DATE_PARTS, DatePart
from src.data.tables.file_format import MISSING_WORDS
from src.data.tables.numbers import BadValue, NumberFormat
from src.deployment.row_inputs import describe_column, describe_inputs
from src.deployment.rows import (
    BadRows,
    check_schema,
    encode_rows,
    encode_table,
    find_codes,
    number_pattern,
    stack,
)

FORMATS = (
    NumberFormat(),
    NumberFormat(","),
    NumberFormat(".", ","),
    NumberFormat(",", ".", "€"),
    NumberFormat(".", " ", "USD"),
    NumberFormat(".", "'", "%"),
    NumberFormat(truth=True),
)


def schema_of(*columns):
    entries = describe_inputs([describe_column(column, MISSING_WORDS) for column in columns])
    # as a file holds it
    return check_schema(json.loads(json.dumps({"format": 1, "inputs": entries})))


def numeric(form, name="x", indicator=True):
    return Numeric(name, name, form, 2.0, 4.0, indicator)


def written(form, value):
    """A number as a person writes it in a format."""
    text = f"{abs(value):,.3f}".replace(",", "t").replace(".", form.decimal)
    text = text.replace("t", form.thousands)
    return ("-" if value < 0 else "") + text + (f" {form.unit}" if form.unit else "")


@pytest.mark.parametrize("form", FORMATS[:-1], ids=str)
@given(value=st.floats(-1e9, 1e9))
@settings(max_examples=20, deadline=None)
def test_numbers_are_those_of_the_format(form, value):
    text = written(form, value)
    column = numeric(form)
    schema = schema_of(column)
    found = encode_table(schema, encode_rows(schema, [{"x": text}]))["dense"]
    expected = column.encode(pd.Series([text], dtype="str"))
    np.testing.assert_array_equal(found, expected)


TEXTS = ["12abc", "1.2.3", "0x10", "inf", "1e999", "--5", "1 2", "12,5", "(5)", "-(5)", "€5", "5€"]
TEXTS += ["1,234", "1.234", "1 234", "0,942", "1'000", "+3", "3 USD", "USD -3", "true", "FALSE"]
TEXTS += ["1.0", "yes", "NA", "n/a", "", "-", "NULL", "None", "1_000", "١٢", "1234.5", "3 %"]


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_a_text_is_a_number_in_both_readings_or_in_neither(form):
    column = numeric(form)
    schema = schema_of(column)
    read = 0
    for text in TEXTS:
        series = pd.Series([text], dtype="str")
        try:
            expected = column.encode(series.mask(series.isin(MISSING_WORDS)))
        except BadValue:
            with pytest.raises(BadRows, match="row 0: column 'x' holds"):
                encode_rows(schema, [{"x": text}])
            continue
        found = encode_table(schema, encode_rows(schema, [{"x": text}]))["dense"]
        np.testing.assert_array_equal(found, expected)
        read += 1
    assert 6 < read < len(TEXTS) - 6


def test_numbers_of_json_mean_what_they_are_in_any_format():
    for form in FORMATS[:-1]:
        schema = schema_of(numeric(form))
        rows = [{"x": 1234.5}, {"x": -3}, {"x": None}, {"x": float("nan")}, {"x": True}]
        found = encode_table(schema, encode_rows(schema, rows))["dense"]
        expected = [[308.125, 0], [-1.25, 0], [0, 1], [0, 1], [-0.25, 0]]
        np.testing.assert_array_equal(found, np.array(expected, np.float32))


@pytest.mark.parametrize("vocabulary", [("3", "007", "b"), ("3.0", "b", None), ("NA", "true", "é")])
def test_words_are_those_of_the_vocabulary(vocabulary):
    column = Categorical("w", vocabulary)
    schema = schema_of(column)
    texts = ["3", "3.0", "+3", "3.00", "007", "7", "b", "B", "é", "true", "new", "NA", "?", ""]
    series = pd.Series(texts, dtype="str")
    gone = series.isin([word for word in MISSING_WORDS if word not in vocabulary])
    expected = column.encode(series.mask(gone))
    columns = encode_rows(schema, [{"w": text} for text in texts])
    np.testing.assert_array_equal(encode_table(schema, columns)["categorical"][:, 0], expected)
    assert find_codes(schema["inputs"][0]).get("new", 0) == 0


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        (
            "ISO8601",
            ["2024-12-31", "2024-02-29T08:30:00+02:00", "2023-07-01 23:59", "20240105", ""],
        ),
        ("%d.%m.%Y", ["31.12.2024", "1.2.2023", "n/a"]),
        ("%b %d, %Y %I:%M %p", ["Mar 05, 2024 03:15 PM"]),
    ],
)
def test_dates_become_their_parts(form, texts):
    parts = [
        Numeric(f"d.{part}", "d", DatePart(form, part), 1.0, 2.0, part == "year")
        for part in DATE_PARTS
    ]
    schema = schema_of(*parts)
    assert [entry["kind"] for entry in schema["inputs"]] == ["date"]
    series = pd.Series(texts, dtype="str")
    series = series.mask(series.isin(MISSING_WORDS))
    expected = np.concatenate([part.encode(series) for part in parts], 1)
    columns = encode_rows(schema, [{"d": text} for text in texts])
    np.testing.assert_array_equal(encode_table(schema, columns)["dense"], expected)
    with pytest.raises(BadRows, match="row 1: column 'd' holds 'soon': a date such as"):
        encode_rows(schema, [{"d": texts[0]}, {"d": "soon"}])


def test_each_wrong_row_has_a_line_with_its_column():
    schema = schema_of(numeric(NumberFormat()), Categorical("w", ("a", "b")))
    rows = [{"x": 1, "w": "a"}, {"x": "one", "w": "a"}, {"w": "a"}, 7, {"x": [1], "w": "a"}]
    rows += [{"x": 1e30, "w": "a"}, {"x": "9" * 200, "w": {}}]
    with pytest.raises(BadRows) as caught:
        encode_rows(schema, rows)
    lines = caught.value.lines
    assert [line.split(":")[0] for line in lines] == [f"row {n}" for n in range(1, 7)]
    assert lines[0] == "row 1: column 'x' holds 'one': a number is expected"
    assert lines[1] == "row 2: lacks the column 'x'; null says that it is missing"
    assert "near those of training, 2 +- 4" in lines[4]
    assert all(len(line) < 200 for line in lines)


def test_tensors_have_the_shape_and_range_of_training():
    entry = {"name": "p", "kind": "tensor", "dtype": "uint8", "shape": [1, 2], "range": [0, 255]}
    schema = check_schema({"format": 1, "inputs": [entry]})
    assert encode_rows(schema, [{"p": [[0, 255]]}])["p"][0].tolist() == [[0, 255]]
    for wrong in ([[0, 256]], [[0, -1]], [0, 1], [[0]], "x", [[None, 1]], [[float("inf"), 0]], {}):
        with pytest.raises(BadRows, match="row 0: column 'p' holds"):
            encode_rows(schema, [{"p": wrong}])


def test_tokens_are_whole_numbers_of_the_vocabulary():
    entry = {"name": "t", "kind": "tensor", "dtype": "int64", "shape": [None], "range": [0, 8]}
    schema = check_schema({"format": 1, "inputs": [entry]})
    assert encode_rows(schema, [{"t": [8, 1]}])["t"][0].tolist() == [8, 1]
    assert encode_rows(schema, [{"t": []}])["t"][0].tolist() == []
    for wrong in ([9], [1.5], [-1], ["word"], 3):
        with pytest.raises(BadRows, match="row 0: column 't' holds"):
            encode_rows(schema, [{"t": wrong}])


def test_short_sequences_end_in_zeros():
    found = stack([np.array([1, 2, 3]), np.array([4])], "int64")
    assert found.tolist() == [[1, 2, 3], [4, 0, 0]]


def named(**fields):
    return {"format": 1, "inputs": [{"name": "x", **fields}]}


@pytest.mark.parametrize(
    "harm",
    [
        {},
        [],
        {"format": 2, "inputs": []},
        {"format": 1, "inputs": [7]},
        {"format": 1, "inputs": [{"kind": "number"}]},
        named(kind="__import__('os').system('true')"),
        named(kind=["number"]),
        named(kind="word", vocabulary="ab", missing=[], missing_is_word=True),
        named(kind="word", vocabulary=["a"], missing=[]),
        named(kind="date", format="%Y", parts=["__class__"], missing=[], missing_lower=[]),
        named(kind="tensor", dtype="object", shape=[], range=[0, 1]),
    ],
)
def test_a_schema_of_a_stranger_is_refused(harm):
    with pytest.raises(ValueError, match=r"schema\.json"):
        check_schema(harm)


def test_a_pattern_holds_what_a_stranger_writes_as_text_alone():
    entry = describe_inputs([describe_column(numeric(NumberFormat()), ())])[0]
    assert number_pattern({**entry, "unit": "(a+)+"}).count(r"\(a\+\)\+") > 0
