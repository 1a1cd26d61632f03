import numpy as np
import pandas as pd
import pytest

from src.data import Table
from src.data.tables.bounds import find_bound, read_bounds, remove_marks
from src.data.tables.numbers import BadValue, NumberFormat
from src.errors import UserError
from tests.cli.calling import columns, table

COMMA = NumberFormat(",", "")


def texts(*values):
    return pd.Series(list(values), dtype="str")


def test_bounds_are_read_in_the_format_of_the_numbers():
    series = texts("12,5", "> 10,5", "<0,1", None, "n.d.", "≥ 3")
    assert read_bounds(series, COMMA).tolist() == [12.5, ">10.5", "<0.1", None, None, ">3"]
    assert read_bounds(pd.Series([1.5, np.nan]), NumberFormat()).tolist() == [1.5, None]
    assert remove_marks(texts(">= 4", "4")).tolist() == ["4", "4"]
    with pytest.raises(BadValue, match="'high'") as caught:
        read_bounds(texts("1", ">high"), NumberFormat())
    assert caught.value.row == 1


def test_a_column_of_numbers_and_bounds_is_known_as_such():
    assert find_bound(texts("1", ">10", "2.5"), None) == ">10"
    assert find_bound(texts("1,5", "-", "< 2,5"), COMMA) == "< 2,5"
    # classes
    assert find_bound(texts("<=50K", ">50K"), None) is None
    assert find_bound(texts("<18", "18-65", ">65"), None) is None
    assert find_bound(texts("<5", ">5"), None) is None
    assert find_bound(pd.Series([1.0, 2.0]), None) is None


def write(path, values):
    path.write_text(table(ic50=values))
    return str(path)


def values_of(mark):
    """60 numbers, of which every fourth is a bound."""
    return [f"{mark if i % 4 == 0 else ''}{i / 4}" for i in range(60)]


@pytest.mark.parametrize("mark", [">", "< ", ">=", "≤ "])
def test_a_table_reads_bounds(tmp_path, mark):
    path = write(tmp_path / "t.csv", values_of(mark))
    data = Table(path, ["ic50"], {"ic50": "CensoredRegression"}, drop=["stage"])
    targets = data.encode_targets_of("train", "ic50")
    sign = 1 if mark[0] in ">≥" else -1
    assert targets[:, 1].tolist() == [sign if i % 4 == 0 else 0 for i in range(60)]
    numbers = data.tasks["ic50"].in_units(targets[:, 0])
    np.testing.assert_allclose(numbers, np.arange(60) / 4, atol=1e-5)
    assert data.labels["ic50"].formats == (NumberFormat(),)
    written = data.truth("train")["ic50"][""]
    assert all(isinstance(value, str) for value in written)
    assert {value[0] for value in written} & {">", "<"} == {">" if sign > 0 else "<"}


def test_a_decimal_comma_behind_a_mark(tmp_path):
    values = [value.replace(".", ",") for value in values_of("> ")]
    rows = zip(columns()["age"], values, strict=True)
    path = tmp_path / "t.csv"
    path.write_text("age;ic50\n" + "".join(f"{age};{value}\n" for age, value in rows))
    data = Table(str(path), ["ic50"], {"ic50": "CensoredRegression"}, delimiter=";")
    numbers = data.tasks["ic50"].in_units(data.encode_targets_of("train", "ic50")[:, 0])
    np.testing.assert_allclose(numbers, np.arange(60) / 4, atol=1e-5)


@pytest.mark.parametrize("share", [4, 20])
def test_bounds_without_a_kind_are_answered_by_its_name(tmp_path, share):
    values = [f"{'>' if i % share == 0 else ''}{i / 4}" for i in range(60)]
    path = write(tmp_path / "t.csv", values)
    with pytest.raises(UserError, match=r"'ic50' holds '>.*CensoredRegression"):
        _ = Table(path, ["ic50"], drop=["stage"]).tasks
    with pytest.raises(UserError, match="CensoredRegression"):
        _ = Table(path, ["ic50"], {"ic50": "Regression"}, drop=["stage"]).tasks


def test_few_bounds_stay_classes_with_a_note(tmp_path):
    values = [["<18", "18", "65", ">65"][i % 4] for i in range(60)]
    path = write(tmp_path / "t.csv", values)
    data = Table(path, ["ic50"], drop=["stage"])
    assert type(data.tasks["ic50"]).__name__ == "Classification"
    notes = [note for note in data.notes() if "CensoredRegression" in note]
    assert len(notes) == 1
    assert "'<18'" in notes[0]
