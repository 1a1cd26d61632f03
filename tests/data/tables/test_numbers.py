"""Numbers as people write them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.tables.number_formats import Written, find_formats, fit_formats
from src.data.tables.numbers import BadValue, NumberFormat, describe_words_for_missing

NAN = float("nan")
PLAIN, COMMA = NumberFormat(), NumberFormat(",")


def texts(*values):
    return pd.Series(list(values), name="x", dtype="str")


def found(*values, decimal=None, thousands=None, comma_file=True, **others):
    columns = {"x": texts(*values), **{name: texts(*column) for name, column in others.items()}}
    return find_formats(columns, decimal, thousands, comma_file)["x"]


def read(*values, **settings):
    """The numbers of a column in the format that is found for it."""
    how = found(*values, **settings)
    assert how.format is not None, values
    assert how.doubt is None, how
    return how.format.numbers(texts(*values)).tolist()


# -- how numbers are written -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        (["1", "-2.5", "+3", "1e3", ".5", "7."], [1, -2.5, 3, 1000, 0.5, 7]),
        (["0,9", "-1,4", "12"], [0.9, -1.4, 12]),
        (["45,000", "1,234.50", "-12"], [45000, 1234.5, -12]),
        (["1.234,5", "0,5", "45.000"], [1234.5, 0.5, 45000]),
        (["1 234,5", "12", "-1 000 000,25"], [1234.5, 12, -1000000.25]),
        (["1 234.5", "12 000"], [1234.5, 12000]),
        (["1'234.50", "7"], [1234.5, 7]),
        (["1\u2019234.50", "7"], [1234.5, 7]),
        (["1\u00a0234,5", "12\u202f000,5"], [1234.5, 12000.5]),
        (["12 %", "-3.5 %", "0%"], [12, -3.5, 0]),
        (["-2,5 %", "7,25 %"], [-2.5, 7.25]),
        (["$1,234.50", "-$3", "$ 12"], [1234.5, -3, 12]),
        (["1 234,5 €", "0,5 €"], [1234.5, 0.5]),
        (["1,234.50 USD", "3 USD"], [1234.5, 3]),
        (["EUR 12,5", "EUR 1,25"], [12.5, 1.25]),
        (["£5", "£7.5", "8"], [5, 7.5, 8]),
        (["(1,234.50)", "3.25"], [-1234.5, 3.25]),
        (["($5)", "$7"], [-5, 7]),
        (["\u22125.5", "3"], [-5.5, 3]),
        (["36.6°", "-4°"], [36.6, -4]),
        (["true", "false", "TRUE", "False"], [1, 0, 1, 0]),
        (["1,5e3", "2,5"], [1500, 2.5]),
    ],
)
def test_numbers_as_people_write_them(written, numbers):
    assert read(*written) == pytest.approx(numbers)


@pytest.mark.parametrize(
    "word", ["-", "n/a", "N/A", "NA", ".", "...", "—", "nil", "#DIV/0!", "n.a."]
)
def test_words_for_missing_among_numbers(word):
    np.testing.assert_array_equal(read("1.5", word, "2", None), [1.5, NAN, 2, NAN])
    np.testing.assert_array_equal(read("1,5", word, "2,25"), [1.5, NAN, 2.25])
    assert (
        describe_words_for_missing(texts("1.5", word, "2", None, word))
        == f"'{word}' in 2 rows counts as missing"
    )


def test_words_for_missing_are_said_for_texts_alone():
    assert describe_words_for_missing(texts("1", "2")) == ""
    assert describe_words_for_missing(pd.Series([1.0, NAN])) == ""


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e9, 1e9).map(lambda x: round(x, 2)), min_size=1, max_size=20),
    st.sampled_from(
        [
            (".", ","),
            (",", "."),
            (",", " "),
            (".", " "),
            (".", "'"),
            (",", "'"),
            (".", ""),
            (",", ""),
        ]
    ),
)
def test_a_format_reads_what_it_writes(numbers, marks):
    decimal, thousands = marks
    swap = str.maketrans({",": thousands, ".": decimal})
    written = [
        f"{x:,.2f}".translate(swap) if thousands else f"{x:.2f}".replace(".", decimal)
        for x in numbers
    ]
    assert NumberFormat(decimal, thousands).numbers(texts(*written)).tolist() == numbers


@pytest.mark.parametrize(
    "wrong", ["1,23,456", "12,34", "0,942", "1,2345", "1.5,000", ",123", "1,,234"]
)
def test_marks_between_thousands_stand_before_three_digits(wrong):
    assert np.isnan(NumberFormat(".", ",").read_texts(texts(wrong))).all()


@pytest.mark.parametrize(
    "wrong",
    ["tall", "1.2.3", "1-2", "08:30", "12 34", "1_000", "0x10", "infinite", "5 apples", "--5"],
)
def test_what_is_no_number(wrong):
    assert np.isnan(PLAIN.read_texts(texts(wrong))).all()
    assert found(wrong, wrong).format is None


# -- mistakes --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("form", "value", "message"),
    [
        (PLAIN, "tall", "holds 'tall' where a number is expected$"),
        (COMMA, "tall", r"holds 'tall' where a number is expected \(a decimal ','\)"),
        (
            NumberFormat(",", ".", "€"),
            "x",
            r"\('.' between thousands and a decimal ',' and the unit '€' left out\)",
        ),
        (PLAIN, "inf", "holds inf, which is not finite"),
        (PLAIN, "-Infinity", "holds -inf, which is not finite"),
        (PLAIN, "9.97e38", r"holds 9.97e\+38, which is beyond single precision: not finite there"),
        (PLAIN, "-1e60", r"holds -1e\+60, which is beyond single precision"),
        (PLAIN, "1e999", "holds inf, which is not finite"),
    ],
)
def test_mistakes_name_the_row(form, value, message):
    with pytest.raises(BadValue, match=message) as caught:
        form.numbers(texts("1", None, value))
    assert caught.value.row == 2


def test_typed_numbers_are_read_whatever_the_format():
    for form in (PLAIN, COMMA):
        np.testing.assert_array_equal(form.numbers(pd.Series([1.5, None])), [1.5, NAN])
        np.testing.assert_array_equal(form.numbers(pd.Series([1, None], dtype="Int64")), [1, NAN])
        np.testing.assert_array_equal(form.numbers(pd.Series([True, False])), [1, 0])
    with pytest.raises(BadValue, match="not finite") as caught:
        PLAIN.numbers(pd.Series([1.0, np.inf]))
    assert caught.value.row == 1


def test_dates_of_typed_files_are_no_numbers():
    with pytest.raises(
        BadValue, match="holds '2024-01-05 00:00:00' where a number is expected"
    ) as caught:
        PLAIN.numbers(pd.Series(pd.to_datetime([None, "2024-01-05"])))
    assert caught.value.row == 1
    np.testing.assert_array_equal(
        COMMA.numbers(pd.Series(pd.to_datetime([None, None]))), [NAN, NAN]
    )


def test_truth_may_come_as_words_or_as_numbers_later():
    truth = found("True", "false").format
    np.testing.assert_array_equal(
        truth.numbers(texts("TRUE", "0", "1.0", None, "-")), [1, 0, 1, NAN, NAN]
    )
    with pytest.raises(BadValue, match="holds '2' where a number is expected"):
        truth.numbers(texts("true", "2"))


# -- what a column is found to hold ----------------------------------------------------------------
def test_shares_count_values_and_leave_missing_ones_out():
    assert fit_formats(texts("1", "2", "2", "x", None, "-"), None, None)[PLAIN] == pytest.approx(
        3 / 4
    )
    assert fit_formats(texts(None, None), None, None) == {}
    assert fit_formats(texts("red", "blue"), None, None) == {}
    assert found("1", "2", "x", None).share == pytest.approx(2 / 3)


def test_texts_without_any_number_have_no_format():
    assert found("red", "blue") == Written(None, 0.0)
    assert found(None, None) == Written(None, 0.0)
    assert find_formats({"d": pd.Series(pd.date_range("2020-01-01", periods=2))}, None, None, True)[
        "d"
    ] == Written(None, 0.0)
    assert find_formats({"d": pd.Series([1, 2])}, None, None, True)["d"] == Written(PLAIN, 1.0)


def test_three_digits_behind_a_comma_are_thousands_where_commas_separate_columns():
    assert read("45,000", "12,500") == [45000, 12500]


def test_three_digits_behind_a_comma_are_a_doubt_in_other_files():
    how = found("45,000", "12,500", comma_file=False)
    assert {how.format.decimal, how.doubt.decimal} == {",", "."}
    assert how.doubt.thousands == "," or how.format.thousands == ","


def test_other_columns_settle_a_doubt():
    assert read("45,000", "12,500", comma_file=False, z=["0,9", "1,25"]) == [45, 12.5]
    assert read("45,000", "12,500", comma_file=False, z=["1,234.5", "2"]) == [45000, 12500]
    assert read("45.000", "12.500", comma_file=False, z=["0,9", "1,25"]) == [45000, 12500]
    assert read("45.000", "12.500", comma_file=False, z=["0.9", "1.25"]) == [45, 12.5]
    assert read("45.000", "12.500") == [45, 12.5]


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ({"decimal": ","}, [45, 12.5]),
        ({"thousands": ","}, [45000, 12500]),
        ({"decimal": "."}, [45000, 12500]),
        ({"decimal": ",", "thousands": "."}, [45, 12.5]),
    ],
)
@pytest.mark.parametrize("comma_file", [True, False])
def test_settings_end_a_doubt(settings, numbers, comma_file):
    assert read("45,000", "12,500", comma_file=comma_file, **settings) == numbers


def test_settings_that_no_value_has_are_refused():
    with pytest.raises(
        ValueError, match=r"column 'x' holds '1.5', which is no number with data.decimal ','"
    ):
        found("1.5", "2.25", decimal=",")
    with pytest.raises(
        ValueError,
        match=r"column 'z' holds '1.5', which is no number with "
        r"data.decimal ',' and data.thousands ' '",
    ):
        found("1,5", z=["1.5"], decimal=",", thousands=" ")
    assert found("red", "blue", decimal=",").format is None


def test_two_units_are_no_numbers():
    how = found("5 USD", "7 EUR")
    assert how.share < 1


def test_formats_in_words():
    assert str(PLAIN) == "plain numbers"
    assert (
        str(NumberFormat(",", ".", "€"))
        == "'.' between thousands and a decimal ',' and the unit '€' left out"
    )
    assert str(NumberFormat(truth=True)) == "true and false as 1 and 0"
