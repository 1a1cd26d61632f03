import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.columns import (
    BadValue,
    Categorical,
    Numeric,
    expand_dates,
    from_plain,
    looks_like_dates,
    numeric_share,
    to_numbers,
    to_plain,
    to_words,
)


def series(*values, **settings):
    return pd.Series(list(values), name="x", **settings)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1, max_size=30).filter(lambda v: any(x is not None for x in v)))
def test_numeric_standardises_and_marks_what_is_missing(values):
    known = np.array([v for v in values if v is not None])
    column = Numeric.fit(series(*values, dtype=float))
    encoded = column.encode(series(*values, dtype=float))
    missing = np.array([v is None for v in values])
    assert column.mean == pytest.approx(known.mean())
    assert column.indicator == missing.any()
    assert encoded.shape == (len(values), 1 + column.indicator)
    assert (encoded[missing, 0] == 0).all()
    if column.indicator:
        assert encoded[:, 1].tolist() == missing.astype(float).tolist()
    spread = (known.std() if known.min() < known.max() else 0) or 1
    np.testing.assert_allclose(encoded[~missing, 0], (known - known.mean()) / spread, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 6, 7])
def test_equal_values_have_spread_1_whatever_rounding_makes_of_it(count):
    column = Numeric.fit(series(*[0.1] * count, None))
    assert column.std == 1.0
    np.testing.assert_allclose(column.encode(series(0.1, 0.6, None)), [[0, 0], [0.5, 0], [0, 1]], atol=1e-7)


def test_values_missing_only_in_new_rows_are_0():
    column = Numeric.fit(series(1.0, 3.0))
    assert column.encode(series(None, 3.0)).tolist() == [[0], [1]]


def test_categorical_has_a_bucket_for_unseen_values_and_a_word_for_missing_ones():
    column = Categorical.fit(series("b", "a", None, "b"))
    assert column.vocabulary == ("a", "b", None)
    assert column.size == 4
    assert column.encode(series("a", "b", None, "z")).tolist() == [1, 2, 3, 0]
    complete = Categorical.fit(series("b", "a"))
    assert complete.size == 3
    assert complete.encode(series(None, "a")).tolist() == [0, 1]  # missing was never seen


def test_numbers_are_the_same_word_whole_or_with_a_point():
    column = Categorical.fit(series(3, 10, 3))
    assert column.vocabulary == ("10", "3")
    assert column.encode(series(3.0, None, 10.0)).tolist() == [2, 0, 1]
    assert to_words(series(1.5, 2.0, None)) == ["1.5", "2", None]
    assert to_words(series(True, False)) == ["True", "False"]


@pytest.mark.parametrize("column", [Numeric("x", 1.5, 2.0, True), Categorical("x", ("a", "b", None)), Categorical("x", ())])
def test_a_column_survives_json(column):
    assert from_plain(json.loads(json.dumps(to_plain(column)))) == column


def test_to_numbers():
    np.testing.assert_array_equal(to_numbers(series("1.5", None, "-2e3", dtype=object)), [1.5, np.nan, -2000])
    np.testing.assert_array_equal(to_numbers(series(True, False)), [1, 0])
    np.testing.assert_array_equal(to_numbers(series(True, None, False, dtype=object)), [1, np.nan, 0])
    np.testing.assert_array_equal(to_numbers(series(1, None, dtype="Int64")), [1, np.nan])


@pytest.mark.parametrize(
    ("value", "message"), [("tall", "holds 'tall' where a number"), (float("inf"), "not finite"), ("-inf", "not finite")]
)
def test_to_numbers_names_the_row(value, message):
    with pytest.raises(BadValue, match=message) as caught:
        to_numbers(series(1.0, None, value, dtype=object))
    assert caught.value.row == 2


def test_numeric_share():
    assert numeric_share(series("1", "2", "x", None)) == pytest.approx(2 / 3)
    assert numeric_share(series(1, 2)) == 1
    assert numeric_share(series(None, None)) == 0
    assert numeric_share(pd.Series(pd.date_range("2020-01-01", periods=3))) == 0


@pytest.mark.parametrize(
    ("values", "is_date"),
    [
        (["2020-01-31", "2021-12-01", None], True),
        (["31/01/2020 10:30", "01/02/2020 11:00"], True),
        (["1.5.2020", "2.5.2020"], True),
        (["a-b", "c-d"], False),
        (["Self-emp", "Private"], False),
        (["12", "13"], False),
        ([None, None], False),
        (["x-1", "y-2"], False),
    ],
)
def test_looks_like_dates(values, is_date):
    assert looks_like_dates(series(*values, dtype=object)) is is_date


def test_dates_of_the_type_of_dates():
    assert looks_like_dates(pd.Series(pd.date_range("2020-01-01", periods=3)))


def test_expand_dates():
    parts = expand_dates(series("2020-02-29 13:30", None, "1999-12-31"))
    got = {name: values.tolist() for name, values in parts.items()}
    nan = pytest.approx(float("nan"), nan_ok=True)
    assert got == {
        "x.year": [2020, nan, 1999],
        "x.month": [2, nan, 12],
        "x.day": [29, nan, 31],
        "x.day_of_week": [5, nan, 4],
        "x.hour": [13, nan, 0],
    }
