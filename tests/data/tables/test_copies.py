"""Rows that are copies of one another, but for a number of their own."""

import numpy as np
import pandas as pd

from src.data import Table
from src.data.tables.copies import group_copies, list_content_columns


def frame(rows=60):
    rng = np.random.default_rng(0)
    half = pd.DataFrame({"x": rng.normal(size=rows).round(4), "y": rng.choice(["no", "yes"], rows)})
    both = pd.concat([half, half], ignore_index=True)
    return both.assign(number=rng.permutation(2 * rows), name=[f"r{i}" for i in range(2 * rows)])


def test_columns_that_name_or_number_rows_do_not_count():
    made = frame()
    assert list_content_columns(made, []) == ["x", "y"]
    assert list_content_columns(made, ["y"]) == ["x"]
    groups = group_copies(made, [])
    assert (groups[:60] == groups[60:]).all()
    assert len(set(groups)) == 60
    # another decimal number in each row is a measurement
    assert list_content_columns(made.head(60).astype("str"), []) == ["x", "y"]


def test_copies_stay_on_one_side(tmp_path):
    path = tmp_path / "t.csv"
    frame().to_csv(path, index=False)
    apart = Table(str(path), ["y"], drop=["number"]).rows
    together = Table(str(path), ["y"], drop=["number"], keep_copies_together=True).rows
    for rows, shared in ((apart, True), (together, False)):
        both = set(rows["train"] % 60) & set(rows["test"] % 60)
        assert bool(both) == shared
    assert [len(together[side]) for side in ("train", "val", "test")] == [84, 18, 18]
