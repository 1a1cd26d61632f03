import numpy as np
import pandas as pd
import pytest

from src.data.tables.dates import (
    DATE_PARTS,
    ISO,
    DatePart,
    find_date_formats,
    find_mixed_dates,
    has_offsets,
    list_formats,
    read_dates,
    reads_any,
)
from src.data.tables.numbers import BadValue

NAN = float("nan")


def texts(*values):
    return pd.Series(list(values), name="x", dtype="str")


@pytest.mark.parametrize(
    ("values", "formats"),
    [
        (["2024-12-31", "2020-01-02", None], [ISO]),
        (["2024-07-15T08:30:00+02:00", "2024-12-15T08:30:00+01:00"], [ISO]),
        (["2024-07-15 08:30:00.250Z", "2024-12-15 08:30:00.5Z"], [ISO]),
        (["2024-01", "2024-12"], [ISO]),
        (["31/12/2024", "01/02/2024"], ["%d/%m/%Y"]),
        (["12/31/2024", "01/02/2024"], ["%m/%d/%Y"]),
        (["01/02/2024", "03/04/2024"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["2024/1/5", "2024/11/30"], [ISO]),
        (["2024-1-5", "2024-11-30"], [ISO]),
        (["2024-07-15 08:30:00+02", "2024-12-15 08:30:00 UTC"], [ISO]),
        (["31.12.2024 23:59", "01.02.2024 00:00"], ["%d.%m.%Y %H:%M"]),
        (["1.5.2020", "31.5.2020"], ["%d.%m.%Y"]),
        (["31-12-24", "30-12-24"], ["%d-%m-%y"]),
        (["5 Jan 2024", "31 Dec 2024"], ["%d %b %Y"]),
        (["January 5, 2024", "December 31, 2024"], ["%B %d, %Y"]),
        (["05-Jan-2024", "31-DEC-2024"], ["%d-%b-%Y"]),
        (["12/31/2024 11:59 PM", "01/31/2024 01:05 AM"], ["%m/%d/%Y %I:%M %p"]),
        (["2024-12-31", "n/a", "-", "2020-01-02"], [ISO]),
        # things that are no dates
        (["9-11", "6-8", "1-2"], []),
        (["08:30", "12:00"], []),
        (["1.2", "3.4"], []),
        (["1.2.3", "10.0.1"], []),
        (["192.168.1.10", "10.0.0.12"], []),
        (["a-b", "c-d"], []),
        (["Self-emp", "Private"], []),
        (["12", "2024"], []),
        (["x-1", "y-2"], []),
        (["2-3-1999999", "4-5-1888888"], []),
        ([None, None], []),
        ([], []),
    ],
)
def test_formats_of_dates(values, formats):
    assert find_date_formats(texts(*values)) == formats


@pytest.mark.parametrize("form", list(list_formats())[1::5])
def test_no_format_is_ruled_out_that_would_be_read(form):
    written = pd.Series(
        pd.date_range("2001-01-30 05:07:09.123456", periods=3, freq="223D")
    ).dt.strftime(form)
    assert reads_any(["soon", *written], form)
    assert not reads_any(["soon", "9-11"], form)


def test_a_column_of_numbers_has_no_format_of_dates():
    assert find_date_formats(pd.Series([20240101, 20240102])) == []


@pytest.mark.parametrize(
    "form", list(list_formats())[1::7]
)  # 7 and 8 times: each day and each time is among them
def test_a_column_written_in_a_format_is_read_in_it(form):
    days = pd.Series(pd.date_range("2001-01-30 05:07:09", periods=40, freq="223D"))
    written = days.dt.strftime(form).astype("str")
    wanted = pd.to_datetime(written, format=form)
    found = find_date_formats(written)
    # ISO dates are read as such; years of two digits may be days
    assert form in found or found == [ISO], found
    assert any((read_dates(written, each) == wanted).all() for each in found)


def test_nine_of_ten_make_dates_and_the_tenth_is_named():
    values = texts(*["31/12/2024"] * 19, "soon")
    assert find_date_formats(values) == ["%d/%m/%Y"]
    with pytest.raises(
        BadValue, match="holds 'soon' where a date such as %d/%m/%Y is expected"
    ) as caught:
        read_dates(values, "%d/%m/%Y")
    assert caught.value.row == 19
    with pytest.raises(
        BadValue, match="holds '12/31/2024' where a date such as 2024-12-31 is expected"
    ) as caught:
        read_dates(texts("2024-12-31", None, "12/31/2024"), ISO)
    assert caught.value.row == 2
    assert find_date_formats(texts(*["31/12/2024"] * 8, "soon", "later")) == []


def test_dates_in_several_forms():
    mixed = texts(*["2024-01-05", "05/01/2024", "2024-02-06", "-"] * 5)
    assert find_date_formats(mixed) == []
    assert find_mixed_dates(mixed) == ("2024-01-05", "05/01/2024", True)
    days = [f"2024-01-{day:02}" for day in range(1, 20)]
    assert find_mixed_dates(texts(*days, "not known")) == ("2024-01-01", "not known", False)
    for values in (
        ["9-11", "6-8"],
        ["555-01-1000", "555-01-1001"],
        ["2024-01-05", "2024-01-06"],
        ["red", "blue"],
        [None],
    ):
        assert find_mixed_dates(texts(*values)) is None


def test_a_format_set_by_hand_reads_numbers_of_typed_files_too():
    month = DatePart("%Y%m%d", "month")
    assert month.numbers(texts("20240105", "20241231")).tolist() == [1, 12]
    np.testing.assert_array_equal(
        month.numbers(pd.Series([20240105, 20241231, None])), [1, 12, NAN]
    )
    with pytest.raises(BadValue, match="holds '7' where a date such as %Y%m%d is expected"):
        month.numbers(pd.Series([20240105, 7]))


def test_parts_of_dates():
    series = texts("2020-02-29 13:30", None, "1999-12-31", "-")
    got = {part: DatePart(ISO, part).numbers(series) for part in DATE_PARTS}
    wanted = {
        "year": [2020, NAN, 1999, NAN],
        "month": [2, NAN, 12, NAN],
        "day": [29, NAN, 31, NAN],
        "day_of_week": [5, NAN, 4, NAN],
        "hour": [13, NAN, 0, NAN],
    }
    for part, values in wanted.items():
        np.testing.assert_array_equal(got[part], values)


@pytest.mark.parametrize(
    "written",
    [
        ["2024-07-15T08:30:00+02:00", "2024-12-15T08:30:00+01:00"],
        ["2024-07-15 08:30+0200", "2024-12-15 08:30+0100"],
        ["2024-07-15T08:30:00Z", "2024-12-15T08:30:00"],
        ["2024-07-15T08:30:00-05:00", "2024-12-15T08:30:00.000-08:00"],
    ],
)
def test_the_clock_counts_as_written_whatever_the_offset(written):
    series = texts(*written)
    assert has_offsets(series)
    assert find_date_formats(series) == [ISO]
    assert DatePart(ISO, "hour").numbers(series).tolist() == [8, 8]
    assert DatePart(ISO, "day").numbers(series).tolist() == [15, 15]


def test_a_day_is_no_offset():
    assert not has_offsets(texts("2024-07-15", "15/07/2024 08:30"))


def test_typed_dates_are_read_whatever_the_format():
    series = pd.Series(pd.to_datetime(["2024-12-31 23:00", None]))
    np.testing.assert_array_equal(DatePart("%d/%m/%Y", "hour").numbers(series), [23, NAN])
