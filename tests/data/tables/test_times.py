"""Splits by time, and the times of rows."""

import numpy as np
import pandas as pd
import pytest

from src.data import Table
from src.data.tables.numbers import BadValue
from src.data.tables.times import read_times, split_by_time
from src.errors import UserError

N = 100


def frame():
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.permutation(N), unit="D")
    return pd.DataFrame(
        {
            "day": days.strftime("%d.%m.%Y"),
            "x": rng.normal(size=N).round(4),
            "y": rng.choice(["no", "yes"], N),
        }
    )


def save(table, folder):
    path = folder / "t.csv"
    table.to_csv(path, index=False)
    return str(path)


def test_the_earliest_rows_train_and_the_latest_test(tmp_path):
    made = frame()
    table = Table(save(made, tmp_path), ["y"], time="day")
    days = pd.to_datetime(made["day"], format="%d.%m.%Y")
    latest = {side: days.iloc[table.rows[side]].max() for side in table.rows}
    earliest = {side: days.iloc[table.rows[side]].min() for side in table.rows}
    assert latest["train"] < earliest["val"] <= latest["val"] < earliest["test"]
    assert {side: len(rows) for side, rows in table.rows.items()} == {
        **{"train": 70, "val": 15, "test": 15}
    }
    # the column is no input, so that its dates need no further setting
    assert [column.column for column in table.columns] == ["x"]


def test_rows_of_one_time_stay_together():
    times = np.repeat([3.0, 1.0, 2.0, 4.0], [10, 40, 30, 20])
    sides = split_by_time(times, 0.2, 0.2)
    assert {time: set(sides[times == time]) for time in (1, 2, 3, 4)} == {
        **{1: {"train"}, 2: {"train"}, 3: {"val"}, 4: {"test"}}
    }


def test_numbers_and_dates_are_times():
    times, are_dates = read_times(pd.Series(["2020", "2019", None], dtype="str"))
    assert not are_dates
    assert times[:2].tolist() == [2020, 2019]
    assert np.isnan(times[2])
    days, are_dates = read_times(pd.Series(["2024-01-31 12:00", "2024-02-01 00:00"], dtype="str"))
    assert are_dates
    assert days[1] - days[0] == 0.5
    with pytest.raises(BadValue, match="holds neither dates nor numbers"):
        read_times(pd.Series(["red", "blue"], dtype="str"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"time": "when"}, "data.time names 'when', which is no column"),
        ({"time": "y"}, "data.time names 'y', which holds neither dates nor numbers"),
        ({"time": "day", "group": "x"}, "data.group and data.time cannot both say how to split"),
        ({"time": "day", "folds": 5}, "data.folds and data.time cannot both say which rows test"),
        ({"time": "gap"}, "t.csv row 4: column 'gap' is missing; each row needs its time"),
    ],
)
def test_what_is_refused(tmp_path, settings, says):
    made = frame().assign(gap=[None if row == 3 else row for row in range(N)])
    with pytest.raises(UserError) as error:
        _ = Table(save(made, tmp_path), ["y"], **settings).rows
    assert says in str(error.value)
