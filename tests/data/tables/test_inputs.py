"""Which columns become inputs, and how."""

import numpy as np
import pandas as pd
import pytest

from src.data.tables.columns import Categorical, Numeric
from src.data.tables.dates import ISO, DatePart
from src.data.tables.input_encoding import encode_inputs
from src.data.tables.inputs import BadColumn, InputReader, counts_rows, describe_case_variants
from src.data.tables.number_formats import find_formats
from src.data.tables.numbers import NumberFormat

N = 40


def reader(
    comma_file=True,
    train=None,
    forced=False,
    categorical=(),
    dates="refuse",
    date_format=None,
    **columns,
):
    frame = pd.DataFrame(
        {
            name: pd.Series(v, dtype="str" if isinstance(v[0], str) else None)
            for name, v in columns.items()
        }
    )
    rows = np.arange(len(frame)) if train is None else np.array(train)
    part = frame.iloc[rows]
    written = find_formats({name: part[name] for name in frame}, None, None, comma_file)
    return InputReader(frame, rows, written, forced, categorical, dates, date_format)


def became(**settings):
    """What one column x becomes, as 'kind: notes' or 'dropped: why'."""
    made = reader(**settings)
    columns = made.columns(["x"])
    if made.dropped and not columns:
        return f"dropped: {made.dropped['x']}"
    kinds = ", ".join(type(column).__name__.lower() for column in columns)
    return f"{kinds}: {'; '.join(made.notes)}" if made.notes else kinds


def cycle(*values, n=N):
    return [values[i % len(values)] for i in range(n)]


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (cycle("1", "2", "3.5"), "numeric"),
        (cycle(1, 2, 3.5), "numeric"),
        (cycle("1,5", "2", "3,25"), "numeric: column 'x': a decimal ','"),
        (cycle("1", "-", "3.5"), "numeric: column 'x': '-' in 13 rows counts as missing"),
        (cycle("12 %", "3 %", "7.5 %"), "numeric: column 'x': the unit '%' left out"),
        (cycle("TRUE", "FALSE", "FALSE"), "numeric: column 'x': true and false as 1 and 0"),
        (cycle("True", "", "False")[:2] * 20, "categorical"),
        (cycle("red", "blue"), "categorical"),
        (
            cycle("01", "02", "11"),
            "categorical: column 'x': codes with leading zeros, read as categories",
        ),
        (
            cycle("007", "11"),
            "categorical: column 'x': codes with leading zeros, read as categories",
        ),
        (
            cycle("02", "A1", "B7"),
            "categorical: column 'x': codes with leading zeros, read as categories",
        ),
        (
            cycle("2", "A1", "B7"),
            "categorical: column 'x': read as categories, though 35% of its values are numbers",
        ),
        (
            cycle("High", "high", "low"),
            "categorical: column 'x': 'High' and 'high' differ in case alone, "
            "and count as two values",
        ),
        (cycle("9-11", "6-8", "1-2"), "categorical"),
        (cycle("08:30", "12:00", "9:15"), "categorical"),
        (cycle("1.2.3", "10.0.1"), "categorical"),
        (cycle("5"), "dropped: constant in the training rows"),
        (cycle("a"), "dropped: constant in the training rows"),
        (cycle("5", "5.0"), "dropped: constant in the training rows"),
        (
            [f"note {i}" for i in range(N)],
            f"dropped: {N} different texts in {N} known values: an identifier or free text"
            " (--data.text '[x]' reads it)",
        ),
        (
            [f"{i:04d}" for i in range(N)],
            f"dropped: {N} different texts in {N} known values: an identifier",
        ),
        ([str(i) for i in range(N)], "dropped: counts the rows"),
        ([3 * i + 7 for i in range(N)], "dropped: counts the rows"),
        ([str(100 - i) for i in range(N)], "dropped: counts the rows"),
        ([f"{i / 7:.3f}" for i in range(N)], "numeric"),
    ],
)
def test_what_a_column_becomes(values, what):
    assert became(x=values) == what


def test_a_column_of_texts_with_gaps_is_an_identifier_by_its_known_values():
    values = [f"p{i}" if i % 2 else None for i in range(N)]
    assert (
        became(x=["", *values][1:] if values[0] else values)
        == f"dropped: {N // 2} different texts in {N // 2} known values: an identifier or free text"
        " (--data.text '[x]' reads it)"
    )


def test_short_tables_keep_their_words():
    assert became(x=[f"word {i}" for i in range(20)]) == "categorical"


@pytest.mark.parametrize("name", ["Unnamed: 0", "__index_level_0__"])
def test_an_index_that_was_saved_is_dropped_whatever_its_order(name):
    order = np.random.default_rng(0).permutation(N)
    made = reader(**{name: order, "x": cycle(1, 2, 4)})
    assert [column.column for column in made.columns([name, "x"])] == ["x"]
    assert made.dropped == {name: "an index that was saved with the table"}
    forced = reader(forced=True, **{name: order})
    assert [column.column for column in forced.columns([name])] == [name]


def test_named_by_hand_nothing_is_dropped_but_constants():
    assert became(forced=True, x=[str(i) for i in range(N)]) == "numeric"
    assert became(forced=True, x=[f"note {i}" for i in range(N)]) == "categorical"
    assert became(forced=True, x=cycle("a")) == "dropped: constant in the training rows"
    assert became(categorical=["x"], x=[str(i) for i in range(N)]) == "categorical"
    assert became(categorical=["x"], x=cycle("2024-01-05", "2024-02-06")) == "categorical"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"x": [*cycle("1", "2.5", n=38), "tall", "9"]},
            "holds 'tall' where a number is expected; .*data.missing; if 'x' is no",
        ),
        (
            {"x": [f"{i}.5" for i in range(30)] + cycle("lost", "gone", n=20)},
            r"holds numbers, but '(lost|gone)' and the like in 40% of the rows: .*"
            r"--data.missing '\[(lost, gone|gone, lost)\]'; if not, set data.categorical",
        ),
        (
            {"x": cycle("45,000", "12,500"), "comma_file": False},
            "holds '45,000', where ',' may be followed by decimals or by thousands: "
            "set --data.decimal ',' or --data.thousands ','",
        ),
        (
            {"x": cycle("01/02/2024", "03/04/2024"), "dates": "expand"},
            r"holds dates such as '01/02/2024', which may be %d/%m/%Y or %m/%d/%Y: "
            r"set --data.date_format '%d/%m/%Y' or",
        ),
        (
            {"x": [*cycle("31/12/2024", n=38), "soon", "30/12/2024"], "dates": "expand"},
            "holds 'soon' where a date such as %d/%m/%Y",
        ),
        ({"x": [*cycle(1.0, 2.0, n=39), np.inf]}, "holds inf, which is not finite"),
    ],
)
def test_what_cannot_be_read_or_may_mean_two_things(settings, message):
    with pytest.raises(BadColumn, match=message) as caught:
        reader(**settings).columns(["x"])
    assert caught.value.column == "x"


def test_all_columns_of_dates_are_refused_in_one_message():
    days, late = cycle("2024-01-05", "2024-02-06"), cycle("31/12/2024 08:30", "30/12/2024 09:00")
    made = reader(a=days, b=late, c=cycle(1, 2), d=list(pd.date_range("2020-01-01", periods=N)))
    with pytest.raises(
        ValueError,
        match=r"columns 'a', 'b', 'd' hold dates: set --data.dates expand, "
        r"or --data.drop '\[a, b, d\]'",
    ) as caught:
        made.columns(list("abcd"))
    assert "where these are no dates, --data.categorical '[a, b, d]'" in str(caught.value)
    with pytest.raises(ValueError, match=r"column 'a' holds dates: "):
        reader(a=days).columns(["a"])


def test_columns_of_one_date_or_none_are_dropped_and_not_refused():
    made = reader(a=cycle("2024-01-05"), b=list(pd.to_datetime([None] * N)), c=cycle(1, 2))
    assert [column.column for column in made.columns(["a", "b", "c"])] == ["c"]
    assert made.dropped == dict.fromkeys("ab", "constant in the training rows")


def test_dates_become_the_parts_that_change():
    made = reader(x=cycle("31/12/2024 08:30", "30/11/2023 08:30"), dates="expand")
    assert [(c.column, c.source, c.reads) for c in made.columns(["x"])] == [
        (f"x.{part}", "x", DatePart("%d/%m/%Y %H:%M", part))
        for part in ("year", "month", "day", "day_of_week")
    ]
    assert made.dropped == {"x.hour": "constant in the training rows"}


def test_offsets_are_said_and_a_format_set_by_hand_ends_a_doubt():
    made = reader(x=cycle("2024-07-15T08:30:00+02:00", "2024-12-15T08:30:00+01:00"), dates="expand")
    assert {c.reads.format for c in made.columns(["x"])} == {ISO}
    assert made.notes == ["column 'x': offsets from UTC are left out, the clock counts as written"]
    made = reader(x=cycle("01/02/2024", "03/04/2024"), dates="expand", date_format="%m/%d/%Y")
    columns = {c.column: c for c in made.columns(["x"])}
    assert columns["x.month"].mean == 2
    assert columns["x.day"].mean == 3


def test_what_becomes_of_a_column_is_learnt_from_the_training_rows():
    values = [*cycle("1", "2", "4", n=30), *cycle("x", n=10)]
    (column,) = reader(train=range(30), x=values).columns(["x"])
    assert isinstance(column, Numeric)
    assert column.mean == pytest.approx(7 / 3)


def test_case_variants_and_counting():
    assert (
        describe_case_variants(pd.Series(["b", "a", "B", None], dtype="str"))
        == "'B' and 'b' differ in case alone, and count as two values"
    )
    assert describe_case_variants(pd.Series(["b", "a"], dtype="str")) == ""
    plain = NumberFormat()
    assert counts_rows(pd.Series([5, 3, 1]), plain)
    assert counts_rows(pd.Series(["1", "2", "3"], dtype="str"), plain)
    for values in ([1, 2], [1, 1, 1], [1, 2, 4], [0.5, 1.0, 1.5], [1, None, 3]):
        assert not counts_rows(pd.Series(values), plain)
    assert not counts_rows(pd.Series(["1", "2", "x"], dtype="str"), plain)


# -- the rows of a file ----------------------------------------------------------------------------
COLUMNS = [Numeric("x", "x", NumberFormat(), 2.0, 2.0, True), Categorical("w", ("a", "b", None))]


def texts(**columns):
    return pd.DataFrame({name: pd.Series(values, dtype="str") for name, values in columns.items()})


def test_encoded_rows():
    inputs, remarks = encode_inputs(
        COLUMNS, texts(w=["b", "a", None], x=["4", None, "-"], z=["1", "2", "3"]), "f.csv", False
    )
    assert inputs["dense"].tolist() == [[1, 0], [0, 1], [0, 1]]
    assert inputs["categorical"].tolist() == [[2], [1], [3]]
    assert remarks == []


def test_unknown_words_are_counted():
    inputs, remarks = encode_inputs(
        COLUMNS, texts(w=["q", "a", "r"], x=["1", "2", "3"]), "f.csv", False
    )
    assert inputs["categorical"].tolist() == [[0], [1], [0]]
    assert remarks == ["f.csv: 2 of 3 rows have a 'w' that training did not know, such as 'q'"]


def test_a_column_that_is_not_there_is_refused_or_missing_in_each_row():
    with pytest.raises(
        ValueError,
        match=r"f.csv: lacks the input column 'x' \(there are w\); "
        r"--allow_missing takes it for missing",
    ):
        encode_inputs(COLUMNS, texts(w=["a"]), "f.csv", False)
    inputs, remarks = encode_inputs(COLUMNS, texts(w=["a", "b"]), "f.csv", True)
    assert inputs["dense"].tolist() == [[0, 1]] * 2
    assert remarks == ["f.csv: lacks x, taken for missing in each row"]
    inputs, remarks = encode_inputs(COLUMNS, texts(q=["a", "b"]), "f.csv", True)
    assert inputs["categorical"].tolist() == [[3]] * 2
    assert remarks == ["f.csv: lacks x, w, taken for missing in each row"]


@pytest.mark.parametrize("value", ["tall", "1e60", "9.97e36", "inf"])
def test_what_cannot_be_a_number_names_file_row_and_column(value):
    with pytest.raises(
        ValueError, match=r"^f.csv row 2: column 'x' holds (tall|'tall'|1e\+60|9.97e\+36|inf)"
    ):
        encode_inputs(COLUMNS, texts(w=["a", "b"], x=["1", value]), "f.csv", False)
