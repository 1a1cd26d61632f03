import gzip

import numpy as np
import pandas as pd
import pytest

from src.data.reading import nearest, read_table


def written(folder, name, text):
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "x,y\n1,a\n2,?\n"),
        ("a.csv", "x, y\n1, a\n2, NA\n"),
        ("a.csv", "x,y\r\n1,a\r\n2,\r\n"),
        ("a.csv", "\ufeffx,y\n1,a\n2,\n"),
        ("a.csv", "\nx,y\n\n1,a\n2,nan\n\n"),
        ("a.csv", 'x,"y"\n1,"a"\n2,null\n'),
        ("a.tsv", "x\ty\n1\ta\n2\t\n"),
        ("a.csv.gz", "x,y\n1,a\n2,None\n"),
        ("a.b.tsv.gz", "x\ty\n1\ta\n2\tN/A\n"),
        ("a.csv", "x,y,\n1,a,\n2,,\n"),
    ],
)
def test_forms_of_text(tmp_path, name, text):
    frame = read_table(written(tmp_path, name, text))
    assert frame["x"].tolist() == [1, 2]
    assert frame["y"].dropna().tolist() == ["a"]
    assert frame["y"].isna().tolist() == [False, True]


def test_parquet(tmp_path):
    pd.DataFrame({"x": [1.5, None], 3: ["a", None]}).rename(columns=str).to_parquet(tmp_path / "a.parquet")
    frame = read_table(tmp_path / "a.parquet")
    assert list(frame.columns) == ["x", "3"]
    np.testing.assert_array_equal(frame["x"], [1.5, np.nan])


def test_delimiter_and_missing_words(tmp_path):
    path = written(tmp_path, "a.csv", "x;y\n1;-\n?;2\n")
    frame = read_table(path, delimiter=";", missing=["-"])
    assert frame["x"].tolist() == ["1", "?"]
    np.testing.assert_array_equal(frame["y"], [np.nan, 2])


def test_names_are_kept_even_those_that_mean_missing(tmp_path):
    frame = read_table(written(tmp_path, "a.csv", "NA,?,None\n1,2,3\n"))
    assert list(frame.columns) == ["NA", "?", "None"]


def test_a_column_without_a_name(tmp_path):
    frame = read_table(written(tmp_path, "a.csv", ",x\n0,5\n1,6\n"))
    assert list(frame.columns) == ["Unnamed: 0", "x"]


def test_short_rows_end_in_missing_values(tmp_path):
    frame = read_table(written(tmp_path, "a.csv", "x,y,z\n1,2\n3,4,5\n"))
    np.testing.assert_array_equal(frame["z"], [np.nan, 5])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "\n\n", "the file is empty"),
        ("a.csv", "x,y\n", "there are column names, but no rows"),
        ("a.csv", "x;y\n1;2\n", "its name holds ';': set --data.delimiter ';'"),
        ("a.csv", "x\ty\n1\t2\n", "its name holds a tab: set --data.delimiter"),
        ("a.csv", "x|y\n1|2\n", "set --data.delimiter '|'"),
        ("a.tsv", "x,y\n1,2\n", "set --data.delimiter ','"),
        ("a.csv", "x,y,x\n1,2,3\n", "the column name 'x' stands there more than once"),
        ("a.csv", "x, x\n1,2\n", "the column name 'x' stands there more than once"),
        ("a.csv", "x,y\n1,2\n3,4,5\n", "cannot be read as a table: .*line 3, saw 3"),
        ("a.csv", "x,y\n1,2,3\n4,5,6\n", "rows have more values than the 2 column names"),
        ("a.csv", "x,y\n1,2,3\n4,5\n", "rows have more values than the 2 column names"),
        ("a.csv", 'x,y\n1,"2\n', "cannot be read as a table"),
        ("a.xlsx", "x", "unknown kind of file; a table's name ends in"),
        ("a", "x", "unknown kind of file"),
        ("a.parquet", "x,y", "cannot be read as a table"),
    ],
)
def test_errors_name_the_file(tmp_path, name, text, message):
    path = written(tmp_path, name, text)
    with pytest.raises(ValueError, match=message.replace("|", "[|]")) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(ValueError, match="is an address"):
        read_table("https://there/table.csv")
    (tmp_path / "a.csv").write_bytes(b"x,y\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"x,y\n1,2\n" * 999)[:40])
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_table(tmp_path / "b.csv.gz")
    (tmp_path / "c.csv.gz").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_table(tmp_path / "c.csv.gz")


def test_nearest():
    assert nearest("incme", ["income", "age"]) == "did you mean income?"
    assert nearest("INCOME", ["income", "age"]) == "did you mean income?"
    assert nearest("zzz", ["income", "age"]) == "there are income, age"
    assert nearest("zzz", [f"c{i:02d}" for i in range(20)]).endswith("c11, ...")
