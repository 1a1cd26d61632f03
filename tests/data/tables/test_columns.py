import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.tables.columns import (
    Categorical,
    Numeric,
    find_positions,
    from_plain,
    simplify_whole,
    to_plain,
    to_words,
)
from src.data.tables.dates import DatePart
from src.data.tables.numbers import BadValue, NumberFormat

PLAIN = NumberFormat()


def series(*values, **settings):
    return pd.Series(list(values), name="x", **settings)


def texts(*values):
    return series(*values, dtype="str")


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1, max_size=30).filter(
        lambda v: any(x is not None for x in v)
    )
)
def test_numeric_standardises_and_marks_what_is_missing(values):
    known = np.array([v for v in values if v is not None])
    column = Numeric.fit("x", series(*values, dtype=float), PLAIN)
    encoded = column.encode(series(*values, dtype=float))
    missing = np.array([v is None for v in values])
    assert column.mean == pytest.approx(known.mean())
    assert column.indicator == missing.any()
    assert encoded.shape == (len(values), 1 + column.indicator)
    assert encoded.dtype == np.float32
    assert (encoded[missing, 0] == 0).all()
    if column.indicator:
        assert encoded[:, 1].tolist() == missing.astype(float).tolist()
    spread = (known.std() if known.min() < known.max() else 0) or 1
    np.testing.assert_allclose(
        encoded[~missing, 0], (known - known.mean()) / spread, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("count", [1, 3, 6, 7])
def test_equal_values_have_spread_1_whatever_rounding_makes_of_it(count):
    column = Numeric.fit("x", series(*[0.1] * count, None), PLAIN)
    assert column.std == 1.0
    np.testing.assert_allclose(
        column.encode(series(0.1, 0.6, None)), [[0, 0], [0.5, 0], [0, 1]], atol=1e-7
    )


def test_values_missing_only_in_new_rows_are_0():
    column = Numeric.fit("x", series(1.0, 3.0), PLAIN)
    assert column.encode(series(None, 3.0)).tolist() == [[0], [1]]


def test_texts_and_numbers_encode_alike():
    column = Numeric.fit("x", texts("1", "3"), PLAIN)
    assert (
        column.encode(texts("3", "1.0", "1e0")).tolist()
        == column.encode(series(3, 1, 1)).tolist()
        == [[1], [-1], [-1]]
    )


def test_numbers_far_from_training_are_named_and_not_finite_ones_too():
    column = Numeric.fit("x", series(1.0, 3.0), PLAIN)
    with pytest.raises(
        BadValue, match=r"holds 1e\+30, where the training rows have 2 \+- 1: not finite"
    ) as caught:
        column.encode(series(1.0, 1e30))
    assert caught.value.row == 1
    with pytest.raises(
        BadValue, match=r"holds 1e\+60, which is beyond single precision: not finite"
    ):
        column.encode(texts("1", "1e60"))


def test_categorical_has_a_bucket_for_unseen_values_and_a_word_for_missing_ones():
    column = Categorical.fit(texts("b", "a", None, "b"))
    assert column.vocabulary == ("a", "b", None)
    assert column.size == 4
    assert column.encode(texts("a", "b", None, "z")).tolist() == [1, 2, 3, 0]
    complete = Categorical.fit(texts("b", "a"))
    assert complete.size == 3
    assert complete.encode(texts(None, "a")).tolist() == [0, 1]  # missing was never seen


def test_numbers_of_typed_files_are_the_same_word_whole_or_with_a_point():
    column = Categorical.fit(series(3, 10, 3))
    assert column.vocabulary == ("10", "3")
    assert column.encode(series(3.0, None, 10.0)).tolist() == [2, 0, 1]
    assert to_words(series(1.5, 2.0, None)).tolist() == [
        "1.5",
        "2",
        pytest.approx(float("nan"), nan_ok=True),
    ]
    assert to_words(series(1, None, dtype="Int64")).dropna().tolist() == ["1"]


def test_texts_stay_as_written():
    column = Categorical.fit(texts("01", "1", "007", "1e5", "3.0"))
    assert column.vocabulary == ("007", "01", "1", "1e5", "3.0")
    assert column.encode(texts("1", "01", "007", "7", "100000", "1e5")).tolist() == [
        3,
        2,
        1,
        0,
        0,
        4,
    ]
    assert column.encode(texts("3", "1.0", "01.0")).tolist() == [
        5,
        3,
        0,
    ]  # programs write whole numbers with decimals


@given(
    st.lists(st.text("01.9", min_size=1, max_size=4) | st.none(), max_size=12),
    st.sets(st.text("01.9", min_size=1, max_size=4)),
)
def test_positions_against_a_slow_look_up(words, vocabulary):
    known = (*sorted(vocabulary), None)

    def place(word):
        if word in known:
            return known.index(word)
        alike = [
            i
            for i, other in enumerate(known)
            if other is not None and simplify_whole(other) == simplify_whole(word)
        ]
        return alike[0] if alike else -1

    assert find_positions(texts(*words), known).tolist() == [place(word) for word in words]


@pytest.mark.parametrize(
    ("word", "bare"),
    [
        ("3.0", "3"),
        ("-3.00", "-3"),
        ("0.0", "0"),
        ("03.0", "03.0"),
        ("3.10", "3.10"),
        ("v1.0", "v1.0"),
        ("+1", "1"),
        ("+0.0", "0"),
        ("+-1", "+-1"),
        ("+01", "+01"),
    ],
)
def test_bare_whole(word, bare):
    assert simplify_whole(word) == bare


@pytest.mark.parametrize(
    "column",
    [
        Numeric("x", "x", PLAIN, 1.5, 2.0, True),
        Numeric("x", "x", NumberFormat(",", ".", "€"), 1.5, 2.0, False),
        Numeric("x.year", "x", DatePart("%d/%m/%Y", "year"), 2000.0, 2.0, False),
        Categorical("x", ("a", "b", None)),
        Categorical("x", ()),
    ],
)
def test_a_column_survives_json(column):
    assert from_plain(json.loads(json.dumps(to_plain(column)))) == column
