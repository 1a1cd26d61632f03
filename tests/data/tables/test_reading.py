import bz2
import datetime
import decimal
import gzip
import lzma

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.data.tables.file_format import FileFormat
from src.data.tables.reading import read_table
from src.errors import suggest_or_list

NAN = float("nan")


def written(folder, name, text):
    path = folder / name
    path.write_bytes(
        gzip.compress(text.encode()) if name.lower().endswith(".gz") else text.encode()
    )
    return path


def known(series):
    return [
        None if missing else value for value, missing in zip(series, series.isna(), strict=True)
    ]


# -- text ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "x,y\n1,a\n2,?\n"),
        ("a.csv", "x, y\n1, a\n2, NA\n"),
        ("a.csv", "x,y\r\n1,a\r\n2,\r\n"),
        ("a.csv", "\ufeffx,y\n1,a\n2,\n"),
        ("a.csv", '\ufeff"x","y"\r\n"1","a"\r\n"2",""\r\n'),
        ("a.csv", "\nx,y\n\n1,a\n2,nan\n\n"),
        ("a.csv", 'x,"y"\n1,"a"\n2,null\n'),
        ("a.csv", "x,y\n1 ,a \n2\t,NA \n"),
        ("a.csv", "x,y\n1,\ta\n2,\t\n"),
        ("a.csv", 'x,y\n"1 "," a "\n2," n/a "\n'),
        ("a.tsv", "x\ty\n1\ta\n2\t\n"),
        ("a.TSV", "x\ty\n1\ta\n2\t\n"),
        ("a.tab", "x\ty\n1\ta\n2\t\n"),
        ("a.txt", "x,y\n1,a\n2,<NA>\n"),
        ("A.CSV", "x,y\n1,a\n2,None\n"),
        ("a.csv.gz", "x,y\n1,a\n2,None\n"),
        ("a.b.tsv.gz", "x\ty\n1\ta\n2\tN/A\n"),
        ("A.Csv.GZ", "x,y\n1,a\n2,NULL\n"),
        ("a.csv", "x,y,\n1,a,\n2,,\n"),
    ],
)
def test_forms_of_text(tmp_path, name, text):
    frame = read_table(written(tmp_path, name, text))
    assert frame["x"].tolist() == ["1", "2"]
    assert known(frame["y"]) == ["a", None]


@pytest.mark.parametrize(("ending", "compress"), [("bz2", bz2.compress), ("xz", lzma.compress)])
def test_other_compressions(tmp_path, ending, compress):
    path = tmp_path / f"a.csv.{ending}"
    path.write_bytes(compress(b"x,y\n1,a\n"))
    assert read_table(path)["y"].tolist() == ["a"]


def test_texts_stay_as_written(tmp_path):
    frame = read_table(
        written(tmp_path, "a.csv", "x\n007\n1e5\n+3\n1.50\nTRUE\n0,5\n".replace("0,5", '"0,5"'))
    )
    assert frame["x"].tolist() == ["007", "1e5", "+3", "1.50", "TRUE", "0,5"]


@pytest.mark.parametrize(
    ("name", "layout", "text"),
    [
        ("a.data", {"format": "csv", "names": ("x", "y")}, "1, a\n2, ?\n"),
        ("a.test.gz", {"format": "csv", "names": ("x", "y")}, "1,a\n2,?\n"),
        ("a.dat", {"format": "csv", "delimiter": "spaces"}, "x y\n1   a\n2  NA\n"),
        (
            "a.data",
            {"format": "csv", "delimiter": "spaces", "names": ("x", "y")},
            "  1   a\n 2  NA\n",
        ),
        ("a.csv", {"delimiter": "\\t"}, "x\ty\n1\ta\n2\t\n"),
        ("a.csv", {"delimiter": ";"}, "x;y\n1;a\n2;\n"),
        ("a.csv", {"delimiter": "|"}, "x|y\n1|a\n2|?\n"),
        ("noending", {"format": "tsv"}, "x\ty\n1\ta\n2\t\n"),
        ("a.csv", {"missing": ("-",)}, "x,y\n1,a\n2,-\n"),
        ("a.csv", {"missing": ("-",)}, "x,y\n1,a\n2,NA\n"),
    ],
)
def test_layouts(tmp_path, name, layout, text):
    frame = read_table(written(tmp_path, name, text), FileFormat(**layout))
    assert frame["x"].tolist() == ["1", "2"]
    assert known(frame["y"]) == ["a", None]


def test_words_for_missing_extend_the_defaults_unless_these_are_turned_off(tmp_path):
    path = written(tmp_path, "a.csv", "x,y\n-999,?\n-999.0,-\n-9990,NA\n")
    more = read_table(path, FileFormat(missing=("-999", "-")))
    assert known(more["x"]) == [None, None, "-9990"]
    assert known(more["y"]) == [None, None, None]
    alone = read_table(path, FileFormat(missing=("-",), missing_defaults=False))
    assert known(alone["y"]) == ["?", None, "NA"]


def test_names_are_kept_even_those_that_mean_missing_or_numbers(tmp_path):
    frame = read_table(
        written(tmp_path, "a.csv", "NA,?,None,1e3,2019,12:30,NO,01\n1,2,3,4,5,6,7,8\n")
    )
    assert list(frame.columns) == ["NA", "?", "None", "1e3", "2019", "12:30", "NO", "01"]


def test_a_column_without_a_name(tmp_path):
    frame = read_table(written(tmp_path, "a.csv", ",x\n0,5\n1,6\n"))
    assert list(frame.columns) == ["Unnamed: 0", "x"]


def test_a_single_column(tmp_path):
    frame = read_table(written(tmp_path, "a.csv", "x\n1\n2\n"))
    assert frame["x"].tolist() == ["1", "2"]


def test_short_rows_end_in_missing_values(tmp_path):
    frame = read_table(written(tmp_path, "a.csv", "x,y,z\n1,2\n3,4,5\n"))
    assert known(frame["z"]) == [None, "5"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "\n\n", "the file is empty"),
        ("a.csv", "x,y\n", "there are column names, but no rows"),
        ("a.csv", "x;y\n1;2\n", "its name holds ';': set --data.delimiter ';'"),
        ("a.csv", "x;y\n0,5;2\n1,5;3\n", "its name holds ';': set --data.delimiter ';'"),
        ("a.csv", "x\ty\n1\t2\n", "its name holds a tab: set --data.delimiter"),
        ("a.csv", "x|y\n1|2\n", "set --data.delimiter '|'"),
        ("a.csv", "x y\n1   2\n", "set --data.delimiter spaces"),
        ("a.csv", "body mass\n", "there are column names, but no rows"),
        ("a.tsv", "x,y\n1,2\n", "set --data.delimiter ','"),
        (
            "a.csv",
            "x,y,x\n1,2,3\n",
            "the column name 'x' stands there more than once; .*--data.names",
        ),
        ("a.csv", "x, x\n1,2\n", "the column name 'x' stands there more than once"),
        (
            "a.csv",
            "5,1,5\n1,2,3\n",
            "the column name '5' stands there more than once; "
            ".*a file without a header needs --data.names",
        ),
        ("a.csv", "x,y\n1,2\n3,4,5\n", "cannot be read as a table: .*line 3, saw 3"),
        ("a.csv", "x,y\n1,2,3\n4,5,6\n", "rows have more values than the 2 column names"),
        ("a.csv", "x,y\n1,2,3\n4,5\n", "rows have more values than the 2 column names"),
        ("a.csv", 'x,y\n1,"2\n', "cannot be read as a table"),
        ("a.xlsx", "x", "unknown kind of file; a table's name ends in .*: --data.format csv"),
        ("a.data", "x", "unknown kind of file; .*--data.format csv or tsv or parquet or arff"),
        ("a", "x", "unknown kind of file"),
        ("a.parquet", "x,y", "cannot be read as a table"),
        ("a.arff", "x,y", "cannot be read as a table"),
    ],
)
def test_errors_name_the_file(tmp_path, name, text, message):
    path = written(tmp_path, name, text)
    with pytest.raises(ValueError, match=message.replace("|", "[|]")) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"names": ("a",)}, "data.names has 1 names, but the first row has 2 values"),
        ({"names": ("a", "a")}, "the column name 'a' stands there more than once"),
        ({"format": "xls"}, "data.format is 'xls'; known are csv, tsv, parquet, arff"),
        ({"delimiter": "ab"}, "data.delimiter is 'ab'; it must be one character"),
    ],
)
def test_layouts_that_do_not_fit(tmp_path, layout, message):
    with pytest.raises(ValueError, match=message):
        read_table(written(tmp_path, "a.csv", "1,2\n"), FileFormat(**layout))


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
    (tmp_path / "u.csv").write_bytes("x,y\n1,ä\n".encode("utf-16"))
    with pytest.raises(ValueError, match="no text in UTF-8"):
        read_table(tmp_path / "u.csv")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"x,y\n1,2\n" * 999)[:40])
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_table(tmp_path / "b.csv.gz")
    (tmp_path / "c.csv.gz").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_table(tmp_path / "c.csv.gz")


# -- Parquet ---------------------------------------------------------------------------------------
def parquet(folder, layout=None, **columns):
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return read_table(folder / "a.parquet", layout)


def test_numbers_of_parquet_stay_numbers(tmp_path):
    frame = parquet(
        tmp_path,
        real=[1.5, None, 2.0],
        whole=pa.array([1, None, 3], pa.int64()),
        long=pa.array([2**53 + 1, None, 2**62 + 1], pa.int64()),
        byte=pa.array([255, 0, 7], pa.uint8()),
        huge=pa.array([2**64 - 1, None, 1], pa.uint64()),
        money=pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-3.50")]),
        half=pa.array(np.array([0.5, 1.5, 2.5], np.float16)),
    )
    np.testing.assert_array_equal(frame["real"], [1.5, NAN, 2])
    assert known(frame["whole"]) == [1, None, 3]
    assert known(frame["long"]) == [2**53 + 1, None, 2**62 + 1]  # as floats they would lose a digit
    assert known(frame["byte"]) == [255, 0, 7]
    assert known(frame["huge"]) == [2**64 - 1, None, 1]
    np.testing.assert_array_equal(frame["money"], [1.25, NAN, -3.5])
    np.testing.assert_array_equal(frame["half"], [0.5, 1.5, 2.5])


def test_words_of_parquet_stay_as_written(tmp_path):
    frame = parquet(
        tmp_path,
        word=["01", None, "1e5"],
        flag=[True, None, False],
        kind=pa.array(["b", None, "a"]).dictionary_encode(),
        code=pa.array([7, None, 5]).dictionary_encode(),
        clock=pa.array([datetime.time(8, 30), None, datetime.time(9)]),
        none=pa.nulls(3),
    )
    assert known(frame["word"]) == ["01", None, "1e5"]
    assert known(frame["flag"]) == ["True", None, "False"]
    assert known(frame["kind"]) == ["b", None, "a"]
    assert known(frame["code"]) == [7, None, 5]
    assert [text and text[:5] for text in known(frame["clock"])] == ["08:30", None, "09:00"]
    assert known(frame["none"]) == [None] * 3


def test_dates_of_parquet_stay_dates_by_the_clock_as_written(tmp_path):
    frame = parquet(
        tmp_path,
        day=pa.array([datetime.date(2024, 12, 31), None]),
        long_ago=pa.array([datetime.date(1066, 10, 14), None]),
        moment=pa.array([datetime.datetime(2024, 12, 31, 8, 30), None], pa.timestamp("us")),
        zoned=pa.array(
            [datetime.datetime(2024, 7, 15, 6, 30), None], pa.timestamp("ms", tz="Europe/Rome")
        ),
    )
    for name in frame:
        assert pd.api.types.is_datetime64_any_dtype(frame[name]), name
        assert frame[name].dt.tz is None
        assert frame[name].isna().tolist() == [False, True]
    assert frame["day"][0] == pd.Timestamp(2024, 12, 31)
    assert frame["long_ago"][0].year == 1066
    assert frame["moment"][0] == pd.Timestamp(2024, 12, 31, 8, 30)
    assert frame["zoned"][0] == pd.Timestamp(2024, 7, 15, 8, 30)


def test_durations_become_seconds_and_lists_a_column_for_each_element(tmp_path):
    frame = parquet(
        tmp_path,
        lasts=pa.array([datetime.timedelta(hours=1), None, datetime.timedelta(milliseconds=500)]),
        v=[[1.0, 2.0], None, [3.0, 4.5]],
        w=pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int8(), 2)),
    )
    np.testing.assert_array_equal(frame["lasts"], [3600, NAN, 0.5])
    np.testing.assert_array_equal(frame[["v.0", "v.1"]], [[1, 2], [NAN, NAN], [3, 4.5]])
    np.testing.assert_array_equal(frame[["w.0", "w.1"]], [[1, 2], [3, 4], [5, 6]])
    assert frame.attrs["notes"] == [
        "column 'lasts' holds durations: read as seconds",
        "column 'v' holds lists: read as 2 columns",
        "column 'w' holds lists: read as 2 columns",
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[1.0], [2.0, 3.0]], "holds lists: left out"),
        ([["a"], ["b"]], "holds lists: left out"),
        ([[[1.0]], [[2.0]]], "holds lists: left out"),
        ([[], []], "holds lists: left out"),
        ([{"a": 1}, {"a": 2}], "holds struct<a: int64>: left out"),
        ([b"x", b"y"], "holds binary: left out"),
    ],
)
def test_what_is_no_column_of_a_table_is_left_out_aloud(tmp_path, values, said):
    frame = parquet(tmp_path, odd=values, x=[1, 2])
    assert list(frame) == ["x"]
    assert len(frame.attrs["notes"]) == 1
    assert f"column 'odd' {said}" in frame.attrs["notes"][0]


def test_a_stored_index_is_a_column_and_words_for_missing_are_found(tmp_path):
    frame = pd.DataFrame(
        {"x": [1, -999, 3], "w": ["a", "-", "b"]}, index=pd.Index([7, 8, 9], name="key")
    )
    frame.to_parquet(tmp_path / "a.parquet")
    got = read_table(tmp_path / "a.parquet", FileFormat(missing=("-999", "-")))
    assert known(got["key"]) == [7, 8, 9]
    assert known(got["x"]) == [1, None, 3]
    assert known(got["w"]) == ["a", None, "b"]
    frame.rename_axis(None).to_parquet(tmp_path / "a.parquet")
    assert "__index_level_0__" in read_table(tmp_path / "a.parquet")


def test_names_of_parquet(tmp_path):
    pd.DataFrame({"x": [1.5, None], 3: ["a", None]}).rename(columns=str).to_parquet(
        tmp_path / "a.PARQUET"
    )
    assert list(read_table(tmp_path / "a.PARQUET").columns) == ["x", "3"]
    pq.write_table(
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]),
        tmp_path / "b.parquet",
    )
    with pytest.raises(
        ValueError, match=r"b.parquet: the column name 'x' stands there more than once"
    ):
        read_table(tmp_path / "b.parquet")


# -- ARFF ------------------------------------------------------------------------------------------
ARFF = (
    "% made by hand\n@relation r\n@attribute x numeric\n@attribute 'the y' {a, 'b c'}\n"
    "@data\n1,a\n?,'b c'\n3.5,?\n"
)


@pytest.mark.parametrize("name", ["a.arff", "a.ARFF", "a.arff.gz"])
def test_arff(tmp_path, name):
    frame = read_table(written(tmp_path, name, ARFF))
    np.testing.assert_array_equal(frame["x"], [1, NAN, 3.5])
    assert known(frame["the y"]) == ["a", "b c", None]


def test_nearest():
    assert suggest_or_list("incme", ["income", "age"]) == "did you mean 'income'?"
    assert suggest_or_list("INCOME", ["income", "age"]) == "did you mean 'income'?"
    assert suggest_or_list("zzz", ["income", "age"]) == "there are income, age"
    assert suggest_or_list("zzz", [f"c{i:02d}" for i in range(20)]).endswith("c11, ...")
