"""Rows in memory are read as rows of a file, and everything wrong with them is found."""

import json

import pandas as pd
import pytest
import torch

from src.data import Table
from src.data.tables.columns import Categorical, Column, Numeric
from src.data.tables.dates import ISO, DatePart
from src.data.tables.file_format import FileFormat
from src.data.tables.image_column import Image
from src.data.tables.input_encoding import encode_inputs
from src.data.tables.numbers import NumberFormat
from src.data.tables.row_reader import MOST_PROBLEMS, BadRows, Problem, RowReader
from src.errors import UserError

COLUMNS: list[Column] = [
    Numeric("age", "age", NumberFormat(), 40.0, 10.0, True),
    Numeric("price", "price", NumberFormat(",", ".", "€"), 1000.0, 500.0, False),
    Numeric("since.year", "since", DatePart(ISO, "year"), 2000.0, 5.0, False),
    Numeric("since.month", "since", DatePart(ISO, "month"), 6.0, 3.0, False),
    Categorical("job", ("1", "clerk", "true", None)),
]
ROW = {"age": 30, "price": 1234.5, "since": "2001-03-04", "job": "clerk"}


def make_reader(allow_missing: bool = False) -> RowReader:
    return RowReader(COLUMNS, ["age", "label"], FileFormat(), allow_missing)


def test_values_of_json_are_read_as_their_texts_in_a_file():
    rows = [
        ROW,
        {**ROW, "age": " 30 ", "price": "1.234,5 €"},
        {**ROW, "age": None, "job": None},
        {**ROW, "age": float("nan"), "job": "NA", "label": "left out"},
        {**ROW, "age": 1e-3, "price": 10**7, "job": 1},
        {**ROW, "job": 1.0},
        {**ROW, "job": True},
    ]
    texts = pd.DataFrame(
        {
            "age": ["30", "30", None, None, "0.001", "30", "30"],
            "price": ["1234,5", "1234,5", "1234,5", "1234,5", "10000000", "1234,5", "1234,5"],
            "since": ["2001-03-04"] * 7,
            "job": ["clerk", "clerk", None, None, "1", "1", "true"],
        },
        dtype="str",
    )
    inputs, remarks = make_reader().encode(rows)
    expected, _ = encode_inputs(COLUMNS, texts, "a file", False)
    assert isinstance(inputs, dict) and isinstance(expected, dict)
    assert remarks == []
    for key in ("dense", "categorical"):
        assert torch.equal(inputs[key], expected[key])


def test_all_bad_values_are_found():
    rows = [
        {**ROW, "age": "x", "since": "yesterday"},
        {**ROW, "price": []},
        ROW,
        "no row",
        {**ROW, "age": float("-inf"), "agee": 3},
        {"age": 3},
    ]
    with pytest.raises(BadRows) as bad:
        make_reader().encode(rows)
    assert [(p.row, p.column) for p in bad.value.problems] == [
        (0, "age"),
        (0, "since"),
        (1, "price"),
        (3, None),
        (4, "agee"),
        (4, "age"),
        (5, "price"),
        (5, "since"),
        (5, "job"),
    ]
    assert bad.value.problems[4] == Problem(
        4, "agee", "is no column that the run knows; did you mean 'age'?"
    )


def test_a_column_may_be_missing_where_that_is_allowed():
    inputs, _ = make_reader(allow_missing=True).encode([{"age": 50}])
    assert isinstance(inputs, dict)
    assert inputs["dense"].tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]
    assert inputs["categorical"].tolist() == [[4]]


def test_the_list_of_problems_ends():
    with pytest.raises(BadRows) as bad:
        make_reader().encode([{**ROW, "age": "x", "price": "y"}] * MOST_PROBLEMS)
    assert len(bad.value.problems) == MOST_PROBLEMS + 1
    assert bad.value.problems[-1].row is None
    # of a whole request, a message has a part
    with pytest.raises(BadRows) as bad:
        make_reader().encode([{**ROW, "age": "x" * 10_000, "y" * 10_000: 1}])
    assert all(len(p.message) <= 300 and len(p.column or "") <= 100 for p in bad.value.problems)


def test_inputs_are_described_in_words_of_the_data():
    described = {each.name: each for each in make_reader().describe()}
    assert list(described) == ["age", "price", "since", "job"]
    assert [each.kind for each in described.values()] == ["number", "number", "date", "category"]
    assert described["job"].words == ("1", "clerk", "true")
    assert "'.' between thousands" in described["price"].details
    example = {name: each.example for name, each in described.items()}
    make_reader().encode([json.loads(json.dumps(example))])


def test_columns_of_files_are_refused():
    with pytest.raises(UserError, match="column 'photo' names files"):
        RowReader([Image("photo", "", 8, 8)], [], FileFormat())


def test_data_without_columns_have_no_reader():
    from src.data import Digits

    with pytest.raises(UserError, match="Digits reads no rows that are given in memory"):
        Digits().row_reader()


def test_a_new_table_has_a_reader(tmp_path):
    lines = ["age,job,y"] + [f"{20 + k % 30},{'ab'[k % 2]},{k % 7}" for k in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    reader = Table(path=str(tmp_path / "t.csv"), targets=["y"]).row_reader()
    inputs, _ = reader.encode([{"age": 20, "job": "a"}])
    assert isinstance(inputs, dict)
    assert inputs["categorical"].tolist() == [[1]]
