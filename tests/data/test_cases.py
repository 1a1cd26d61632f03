"""Files that people really have, one of each kind and its relatives, and what must come out.

Each case makes its small files, opens them as training does, and, where it has a file of new rows,
opens that one with the schema of the run. What must come out is a value, the words of a note, or
the words of an error.
"""

import datetime
import decimal
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.data import Table
from src.data.tables.columns import Categorical, Numeric

N = 100
NAN = float("nan")


class Case(NamedTuple):
    """A situation: what to write, how to open it, what must come out."""

    name: str
    files: dict[str, Any]  # of which the first is the table, and new... holds new rows
    settings: dict[str, Any]
    gives: tuple[Callable[[Table], Any], Any] | None = None
    says: tuple[str, ...] | str = ()
    refuses: str = ""
    silent: tuple[str, ...] | str = ()


# -- making files ----------------------------------------------------------------------------------
def cycle(*values: Any, n: int = N) -> list[Any]:
    return [values[i % len(values)] for i in range(n)]


X = [round((i * 37 % 101) / 25 - 2, 2) for i in range(N)]
Y = [["no", "yes"][i * 7 // 3 % 2] for i in range(N)]


def csv(delimiter: Any = ",", end: Any = "\n", n: Any = N, **columns: Any) -> str:
    """Returns a text file of columns x and y, and others in between; None leaves one out."""
    made = {"x": X[:n], **columns, "y": columns.get("y", Y[:n])}
    if "x" in columns and list(columns).index("x") > 0:
        made = {**columns, "y": made["y"]}  # x comes where it is named
    made = {name: values for name, values in made.items() if values is not None}

    def cell(value: Any) -> str:
        text = "" if value is None else str(value)
        return f'"{text}"' if delimiter in text else text

    lines = [
        delimiter.join(map(cell, row)) for row in [tuple(made), *zip(*made.values(), strict=True)]
    ]
    return end.join(lines) + end


def arrow(**columns: Any) -> pa.Table:
    return pa.table({"x": X, "y": Y, **columns})


def write(name: str, content: Any) -> None:
    if isinstance(content, pa.Table):
        pq.write_table(content, name)
    elif isinstance(content, pd.DataFrame):
        content.to_parquet(name)
    else:
        raw = content if isinstance(content, bytes) else content.encode()
        Path(name).write_bytes(gzip.compress(raw) if name.lower().endswith(".gz") else raw)


# -- looking at what came out ----------------------------------------------------------------------
def encoded(table: Table) -> dict[str, Any]:
    """The inputs of all rows."""
    inputs = table.split("predict").inputs
    assert isinstance(inputs, dict)
    return inputs


def numbers(column: str, rows: int = 3) -> Callable[[Table], list[float]]:
    """Returns the first numbers of an input in the file's unit; NaN where missing."""

    def look(table: Table) -> list[float]:
        dense, place = encoded(table)["dense"].double().numpy(), 0
        for c in table.columns:
            if isinstance(c, Numeric):
                if c.column == column:
                    found = dense[:rows, place] * c.std + c.mean
                    missing = (
                        dense[:rows, place + 1] > 0 if c.indicator else np.zeros(len(found), bool)
                    )
                    return [
                        NAN if m else round(float(v), 2) + 0.0
                        for v, m in zip(found, missing, strict=True)
                    ]
                place += 1 + c.indicator
        raise AssertionError(f"{column} is no number: {kinds(table)}")

    return look


def words(column: str, rows: int = 3) -> Callable[[Table], list[Any]]:
    """Returns the first words of an input; '' where training did not know one."""

    def look(table: Table) -> list[Any]:
        names = [c for c in table.columns if isinstance(c, Categorical)]
        place = [c.column for c in names].index(column)
        codes = encoded(table)["categorical"][:rows, place].tolist()
        return [("", *names[place].vocabulary)[code] for code in codes]

    return look


def kinds(table: Table) -> dict[str, str]:
    return {column.column: type(column).__name__ for column in table.columns}


def task(name: str = "y") -> Callable[[Table], Any]:
    """The kind of a task, with its classes where it has some."""

    def look(table: Table) -> Any:
        found = table.tasks[name]
        classes = getattr(found, "classes", None) or getattr(found, "labels", None)
        return (type(found).__name__, *classes) if classes else type(found).__name__

    return look


def labels(name: str = "y", rows: int = 3) -> Callable[[Table], list[Any]]:
    """The first labels of all rows as the task has them, decoded."""
    return lambda table: table.tasks[name].decode_targets(
        table.encode_targets_of("train", name)[:rows]
    )[""]


def mean(name: str = "y") -> Callable[[Table], float]:
    """The mean label of the rows of the main file."""

    def look(table: Table) -> float:
        found: Any = table.tasks[name]
        return round(
            float(
                (
                    table.encode_targets_of("train", name).double() * found.std[0] + found.mean[0]
                ).nanmean()
            ),
            2,
        )

    return look


def ids(table: Table) -> list[Any]:
    return table.row_info("predict")["id"][:3]


def trained(column: str, *values: str) -> Callable[[Table], bool]:
    """Whether the rows with these values in a column all train."""
    return lambda table: (
        set(np.flatnonzero(table.main[column].isin(values))) <= set(table.rows["train"])
    )


def tasks(table: Table) -> dict[str, list[str]]:
    return table.targets


COMMA = [str(value).replace(".", ",") for value in X]
NAMED = {"targets": ["y"]}
DMY = [f"{1 + i % 28:02d}/{1 + i * 5 % 12:02d}/{2020 + i % 4}" for i in range(N)]
DST = [f"2024-{1 + i % 12:02d}-15T08:30:00+0{2 if 3 <= i % 12 <= 8 else 1}:00" for i in range(N)]
SPECIES = [f"s{i % 20:02d}" for i in range(194)] + [f"s{i}" for i in range(20, 26)]
SHUFFLED = np.random.default_rng(0).permutation(N).tolist()

READING = [
    # 3: types are kept, as training saw them
    Case(
        "03 codes keep their zeros",
        {"t.csv": csv(dept=cycle("02", "01", "A1")), "new.csv": "dept,x\n01,1\n02,1\n"},
        NAMED,
        (words("dept"), ["01", "02"]),
    ),
    Case(
        "03 codes of digits alone",
        {"t.csv": csv(dept=cycle("02", "01", "11")), "new.csv": "dept,x\n1,1\n02,1\n11,1\n"},
        NAMED,
        (words("dept"), ["", "02", "11"]),
        says="'dept': codes with leading zeros",
    ),
    Case(
        "03 a few codes in many",
        {"t.csv": csv(icd=cycle("E11", "7", "1e5")), "new.csv": "icd,x\n7,1\n100000,1\n1e5,1\n"},
        NAMED,
        (words("icd"), ["7", "", "1e5"]),
    ),
    Case(
        "03 whole numbers as categories",
        {"t.csv": csv(k=cycle("3", "5", "")), "new.csv": "k,x\n3.0,1\n,1\n5,2\n"},
        {**NAMED, "categorical": ["k"]},
        (words("k"), ["3", None, "5"]),
    ),
    Case(
        "03 labels with a word",
        {"t.csv": csv(y=cycle("1", "2", "unknown")), "new.csv": csv(y=cycle("1", "2"))},
        NAMED,
        (labels(), ["1", "2", "1"]),
    ),
    Case(
        "03 labels with a word, new ones with decimals",
        {"t.csv": csv(y=cycle("1", "2", "unknown")), "new.csv": csv(y=cycle("1.0", "2.0", ""))},
        NAMED,
        (labels(), ["1", "2", None]),
    ),
    Case(
        "03 zeros of classes",
        {"t.csv": csv(y=cycle("01", "02"))},
        NAMED,
        (task(), ("BinaryClassification", "01", "02")),
    ),
    Case(
        "03 a class that new rows write without its zero",
        {"t.csv": csv(y=cycle("01", "02")), "new.csv": csv(y=cycle("1", "2"))},
        NAMED,
        refuses="new.csv row 1: target 'y' holds the class '1'",
    ),
    Case(
        "03 zeros of ids",
        {"t.csv": csv(id=[f"{i:04d}" for i in range(N)])},
        {**NAMED, "id": "id"},
        (ids, ["0000", "0001", "0002"]),
    ),
    Case(
        "03 ids like numbers",
        {"t.csv": csv(id=[f"{i}e5" for i in range(N)])},
        {**NAMED, "id": "id"},
        (ids, ["0e5", "1e5", "2e5"]),
    ),
    Case(
        "03 zeros of groups",
        {"t.csv": csv(g=cycle("01", "1", "001", "2", "02", "3", "4", "5", "6", "7", "8", "9"))},
        {**NAMED, "group": "g"},
        (
            lambda t: [
                len(set(t.main["g"].iloc[t.rows[a]]) & set(t.main["g"].iloc[t.rows[b]]))
                for a, b in (("train", "test"), ("train", "val"))
            ],
            [0, 0],
        ),
    ),
    Case(
        "03 truth in other words",
        {"t.csv": csv(f=cycle("TRUE", "FALSE", "FALSE")), "new.csv": "f,x\ntrue,1\nFalse,1\n,1\n"},
        NAMED,
        (numbers("f", 2), [1, 0]),
    ),
    # 4: predictions need inputs alone
    Case(
        "04 new rows have inputs alone",
        {
            "t.csv": csv(
                fold=cycle("val", "train", "test", "train"),
                note=cycle("a", "b"),
                code=cycle("1", "2", "2"),
            ),
            "new.csv": "code,x\n1,0.5\n2,-0.5\n",
        },
        {**NAMED, "split_column": "fold", "drop": ["note"], "categorical": ["code", "note"]},
        (words("code"), ["1", "2"]),
    ),
    Case(
        "04 new rows without group and id",
        {
            "t.csv": csv(patient=[f"P{i // 3}" for i in range(N)], key=list(range(N))),
            "new.csv": "x\n0.5\n-0.5\n",
        },
        {**NAMED, "group": "patient", "id": "key"},
        (ids, [1, 2]),
    ),
    Case(
        "04 the files of other splits may be gone",
        {
            "t.csv": csv(),
            "v.csv": csv(n=20, x=X[5:25]),
            "e.csv": csv(n=20, x=X[7:27]),
            "new.csv": "x\n0.5\n",
            "gone": "v.csv e.csv",
        },
        {**NAMED, "val_path": "v.csv", "test_path": "e.csv"},
        (numbers("x"), [0.5]),
    ),
    Case(
        "04 an input that new rows lack",
        {"t.csv": csv(k=cycle(1, 2, 4)), "new.csv": "k,z\n1,2\n"},
        NAMED,
        refuses="new.csv: lacks the input column 'x' .there are k, z.; --allow_missing",
    ),
    # 7: numbers as people write them
    Case(
        "07 decimal comma",
        {"t.csv": csv(";", x=COMMA, z=cycle("2,8", "-4,2", "0"))},
        {"targets": ["z"], "delimiter": ";", "drop": ["y"]},
        (numbers("x"), X[:3]),
        says=("column 'x': a decimal ','", "target 'z': a decimal ','"),
    ),
    Case(
        "07 decimal comma, target",
        {"t.csv": csv(";", z=[f"{v:.1f}".replace(".", ",") for v in X], y=None)},
        {"targets": ["z"], "delimiter": ";"},
        (task("z"), "Regression"),
    ),
    Case("07 decimal comma in quotes", {"t.csv": csv(x=COMMA)}, NAMED, (numbers("x"), X[:3])),
    Case("07 decimal comma with tabs", {"t.tsv": csv("\t", x=COMMA)}, NAMED, (numbers("x"), X[:3])),
    Case(
        "07 new rows with a decimal point",
        {"t.csv": csv(x=COMMA), "new.csv": "x\n0.5\n"},
        NAMED,
        refuses="new.csv row 1: column 'x' holds '0.5'.*a decimal ','",
    ),
    Case(
        "07 thousands",
        {"t.csv": csv(income=[f"{900 + i * i * 5:,}" for i in range(N)])},
        NAMED,
        (numbers("income"), [900, 905, 920]),
        says="column 'income': ',' between thousands",
    ),
    Case(
        "07 thousands with a tab",
        {"t.tsv": csv("\t", x=None, income=[f"{1000 + i * i:,}" for i in range(N)])},
        NAMED,
        refuses="column 'income' holds '1,000', "
        "where ',' may be followed by decimals or by thousands: "
        "set --data.decimal ',' or --data.thousands ','",
    ),
    Case(
        "07 thousands with a tab, said",
        {"t.tsv": csv("\t", x=None, income=[f"{1000 + i * i:,}" for i in range(N)])},
        {**NAMED, "thousands": ","},
        (numbers("income"), [1000, 1001, 1004]),
    ),
    Case(
        "07 thousands with a tab, decimals said",
        {"t.tsv": csv("\t", x=None, income=[f"{1000 + i * i:,}" for i in range(N)])},
        {**NAMED, "decimal": ","},
        (numbers("income"), [1, 1, 1]),
    ),
    Case(
        "07 thousands with a point",
        {
            "t.csv": csv(
                ";",
                v=[f"{1000.5 + i * i:,.1f}".translate(str.maketrans(",.", ".,")) for i in range(N)],
            )
        },
        {**NAMED, "delimiter": ";"},
        (numbers("v"), [1000.5, 1001.5, 1004.5]),
    ),
    Case(
        "07 a point that another column explains",
        {"t.csv": csv(";", x=COMMA, v=[f"{1 + i % 9}.{i * 37 % 1000:03d}" for i in range(N)])},
        {**NAMED, "delimiter": ";"},
        (numbers("v"), [1000, 2037, 3074]),
    ),
    Case(
        "07 spaces and a currency",
        {"t.csv": csv(";", v=[f"1 {234 + i},5 €" for i in range(N)])},
        {**NAMED, "delimiter": ";"},
        (numbers("v"), [1234.5, 1235.5, 1236.5]),
        says="' ' between thousands and a decimal ',' and the unit '€' left out",
    ),
    Case(
        "07 a currency behind",
        {"t.csv": csv(v=[f"{1234.5 + i * i:,.2f} USD" for i in range(N)])},
        NAMED,
        (numbers("v"), [1234.5, 1235.5, 1238.5]),
    ),
    Case(
        "07 dollars",
        {"t.csv": csv(v=[f"${1234 + i * i:,}" for i in range(N)])},
        NAMED,
        (numbers("v"), [1234, 1235, 1238]),
    ),
    Case(
        "07 percents",
        {"t.csv": csv(v=[f"{i * 3 % 47 - 5} %" for i in range(N)])},
        NAMED,
        (numbers("v"), [-5, -2, 1]),
    ),
    Case(
        "07 plus signs",
        {"t.csv": csv(v=[f"{i * 3 % 47 - 5:+d}" for i in range(N)])},
        NAMED,
        (numbers("v"), [-5, -2, 1]),
    ),
    Case(
        "07 quoted numbers",
        {"t.csv": "x,y\n" + "".join(f'"{x}","{y}"\n' for x, y in zip(X, Y, strict=True))},
        NAMED,
        (numbers("x"), X[:3]),
    ),
    Case(
        "07 minus signs of printers",
        {"t.csv": csv(x=[str(v).replace("-", "\u2212") for v in X])},
        NAMED,
        (numbers("x"), X[:3]),
    ),
    Case(
        "07 brackets of bookkeepers",
        {"t.csv": csv(v=cycle("(5.50)", "7.25", "(1.00)"))},
        NAMED,
        (numbers("v"), [-5.5, 7.25, -1]),
    ),
    Case(
        "07 words for missing",
        {"t.csv": csv(age=cycle("n/a", "-", "NA ", 71, 72, 55, 31, 20, 19, 4))},
        NAMED,
        (numbers("age", 4), [NAN, NAN, NAN, 71]),
        says="column 'age': '-' in 10 rows counts as missing",
    ),
    Case(
        "07 words for missing in a target",
        {"t.csv": csv(z=cycle("1.5", "-", "2.5", "n/a", "7"), y=None)},
        {"targets": ["z"]},
        (mean("z"), 3.67),
        says=("'-' in 20 rows counts as missing", "% of the labels missing"),
    ),
    Case(
        "07 words for missing with a tab behind",
        {"t.csv": csv(age=cycle("N/A ", "NA\t", " ", 71, 72.5))},
        NAMED,
        (numbers("age", 4), [NAN, NAN, NAN, 71]),
    ),
    Case(
        "07 other words among many numbers",
        {"t.csv": csv(v=[*X[:70], *cycle("lost", "gone", n=30)])},
        NAMED,
        refuses=r"column 'v' holds numbers, but '(lost|gone)' and the like in .* of the rows: "
        r".*--data.missing '\[(lost, gone|gone, lost)\]'",
    ),
    Case(
        "07 other words, said",
        {"t.csv": csv(v=[*X[:70], *cycle("lost", "gone", n=30)])},
        {**NAMED, "missing": ["lost", "gone"]},
        (numbers("v"), X[:3]),
    ),
    Case(
        "07 other words in a target",
        {"t.csv": csv(z=[*X[:70], *cycle("lost", "gone", n=30)])},
        {"targets": ["z"]},
        refuses="target 'z' holds numbers, but '(lost|gone)' and the like in "
        ".*set its kind in data.tasks",
    ),
    Case(
        "07 numbers and words",
        {"t.csv": csv(v=cycle("1", "2", "many"))},
        NAMED,
        (words("v"), ["1", "2", "many"]),
        says=r"column 'v': read as categories, though \d\d% of its values are numbers",
    ),
    Case(
        "07 decimals said wrongly",
        {"t.csv": csv()},
        {**NAMED, "decimal": ","},
        refuses="column 'x' holds '.*', which is no number with data.decimal ','",
    ),
    # 8: further words for missing
    Case(
        "08 the defaults stay",
        {"t.csv": csv(age=cycle("NA", "missing", 7, 8.5))},
        {**NAMED, "missing": ["missing"]},
        (numbers("age"), [NAN, NAN, 7]),
    ),
    Case(
        "08 the hint is right",
        {"t.csv": csv(age=[*cycle("", 7, 8.5, n=97), "none given", 1, 2])},
        {**NAMED, "split_seed": 1},
        refuses="row 98: column 'age' holds 'none given'.*add it to data.missing",
    ),
    Case(
        "08 numbers for missing",
        {"t.csv": csv(age=cycle(-999, "-999.0", 7, 8.5))},
        {**NAMED, "missing": ["-999"]},
        (numbers("age"), [NAN, NAN, 7]),
    ),
    Case(
        "08 numbers for missing, as YAML has them",
        {"t.csv": csv(age=cycle(-999, 6, 7, 8.5))},
        {**NAMED, "missing": [-999]},
        (numbers("age"), [NAN, 6, 7]),
    ),
    Case(
        "08 without the defaults",
        {"t.csv": csv(w=cycle("NA", "EU", "?"))},
        {**NAMED, "missing_defaults": False},
        (words("w"), ["NA", "EU", "?"]),
    ),
    # 9: rare classes train
    Case(
        "09 a tail of classes",
        {"t.csv": csv(n=200, x=X * 2, species=SPECIES, y=None)},
        {"targets": ["species"]},
        (trained("species", *[f"s{i}" for i in range(20, 26)]), True),
    ),
    Case(
        "09 classes in one group",
        {
            "t.csv": csv(
                site=[f"h{i // 10}" for i in range(N)],
                y=[f"c{i // 10 if i >= 80 else i % 3}" for i in range(N)],
            )
        },
        {**NAMED, "group": "site"},
        (trained("y", "c8", "c9"), True),
    ),
    Case(
        "09 rare classes of two tasks",
        {
            "t.csv": csv(
                a=["odd" if i == 3 else "ab"[i % 2] for i in range(N)],
                b=["odd" if i == 90 else "ab"[i % 2] for i in range(N)],
                y=None,
            )
        },
        {"targets": ["a", "b"]},
        (lambda t: trained("a", "odd")(t) and trained("b", "odd")(t), True),
    ),
    # 10: names that YAML or Python might take for something else
    Case(
        "10 names like words of YAML",
        {
            "t.csv": csv(
                NO=X[::-1],
                NO2=X,
                y=None,
                **{"2019": cycle(1, 2), "1e3": cycle("a", "b"), "12:30": X},
            )
        },
        {"targets": ["NO", "2019", "1e3", "12:30"], "drop": ["NO2"]},
        (tasks, {"NO": ["NO"], "2019": ["2019"], "1e3": ["1e3"], "12_30": ["12:30"]}),
    ),
    Case(
        "10 classes like words of YAML",
        {"t.csv": csv()},
        {**NAMED, "tasks": {"y": {"classes": ["yes", "no"]}}},
        (task(), ("BinaryClassification", "yes", "no")),
    ),
    Case(
        "10 a column named NA or null",
        {"t.csv": csv(y=None, null=cycle("a", "b"), NA=X[::-1])},
        {"targets": ["null"]},
        (kinds, {"x": "Numeric", "NA": "Numeric"}),
    ),
    # 11: spaces and case
    Case(
        "11 trailing spaces",
        {"t.csv": csv(end="\r\n", y=cycle("yes ", "no", "yes", "no "))},
        NAMED,
        (task(), ("BinaryClassification", "no", "yes")),
    ),
    Case(
        "11 spaces within inputs",
        {"t.csv": csv(w=cycle(" red", "red ", "blue", "dark  red"))},
        NAMED,
        (words("w", 4), ["red", "red", "blue", "dark  red"]),
    ),
    Case(
        "11 case of classes",
        {"t.csv": csv(y=cycle("High ", "high", "low"))},
        NAMED,
        (task(), ("Classification", "High", "high", "low")),
        says="'High' and 'high' differ in case alone",
    ),
    Case(
        "11 case of categories",
        {"t.csv": csv(w=cycle("Rome", "rome"))},
        NAMED,
        says="column 'w': 'Rome' and 'rome' differ in case alone, and count as two values",
    ),
    Case(
        "11 spaces of names",
        {"t.csv": csv().replace("x,y", " x , y ")},
        NAMED,
        (kinds, {"x": "Numeric"}),
    ),
    # 12: dates
    Case(
        "12 one format",
        {"t.csv": csv(day=DMY), "new.csv": "x,day\n1,05/04/2021\n1,31/01/2022\n"},
        {**NAMED, "dates": "expand"},
        (numbers("day.month"), [4, 1]),
    ),
    Case(
        "12 an unreadable date in new rows",
        {"t.csv": csv(day=DMY), "new.csv": "x,day\n1,05/04/2021\n1,04/31/2022\n"},
        {**NAMED, "dates": "expand"},
        refuses="new.csv row 2: column 'day.* holds '04/31/2022' "
        "where a date such as %d/%m/%Y is expected",
    ),
    Case(
        "12 an unreadable date",
        {"t.csv": csv(day=["soon" if i in (41, 42) else d for i, d in enumerate(DMY)])},
        {**NAMED, "dates": "expand"},
        refuses="row 4[23]: column 'day.*holds 'soon' where a date such as %d/%m/%Y is expected",
    ),
    Case(
        "12 days or months",
        {"t.csv": csv(day=cycle("01/02/2024", "03/04/2024", "05/06/2024"))},
        {**NAMED, "dates": "expand"},
        refuses="which may be %d/%m/%Y or %m/%d/%Y: set --data.date_format",
    ),
    Case(
        "12 days or months, said",
        {"t.csv": csv(day=cycle("01/02/2024", "03/04/2024", "05/06/2024"))},
        {**NAMED, "dates": "expand", "date_format": "%m/%d/%Y"},
        (numbers("day.month"), [1, 3, 5]),
    ),
    Case(
        "12 summer time",
        {"t.csv": csv(when=DST)},
        {**NAMED, "dates": "expand"},
        (kinds, {"x": "Numeric", "when.month": "Numeric", "when.day_of_week": "Numeric"}),
        says="offsets from UTC are left out",
    ),
    Case(
        "12 dates with a clock",
        {
            "t.csv": csv(
                when=[f"{d[:2]}.{d[3:5]}.{d[6:]} {8 + i % 3}:59" for i, d in enumerate(DMY)]
            )
        },
        {**NAMED, "dates": "expand"},
        (numbers("when.hour"), [8, 9, 10]),
    ),
    Case(
        "12 short dates",
        {"t.csv": csv(day=[f"2024/{1 + i % 12}/{1 + i % 28}" for i in range(N)])},
        {**NAMED, "dates": "expand"},
        (numbers("day.day"), [1, 2, 3]),
    ),
    Case(
        "12 gaps in dates",
        {"t.csv": csv(day=["-" if i % 10 == 1 else d for i, d in enumerate(DMY)])},
        {**NAMED, "dates": "expand"},
        (numbers("day.day"), [1, NAN, 3]),
    ),
    Case(
        "12 ranges are words",
        {"t.csv": csv(tumor=cycle("9-11", "6-8", "1-2", "3-5"))},
        NAMED,
        (words("tumor"), ["9-11", "6-8", "1-2"]),
    ),
    Case(
        "12 clocks are words",
        {"t.csv": csv(at=cycle("08:30", "12:00", "9:15"))},
        NAMED,
        (words("at"), ["08:30", "12:00", "9:15"]),
    ),
    Case(
        "12 all dates in one message",
        {"t.csv": csv(day=DMY, when=DST)},
        NAMED,
        refuses=r"columns 'day', 'when' hold dates: set --data.dates expand, "
        r"or --data.drop '\[day, when\]'.*--data.categorical",
    ),
    Case(
        "12 dates to predict",
        {"t.csv": csv(y=DMY)},
        NAMED,
        refuses="target 'y' holds dates, which no task predicts",
    ),
    Case(
        "12 days of digits, said",
        {"t.csv": csv(day=[f"2024{1 + i % 12:02d}{1 + i % 28:02d}" for i in range(N)])},
        {**NAMED, "dates": "expand", "date_format": "%Y%m%d"},
        (numbers("day.month"), [1, 2, 3]),
    ),
    Case(
        "12 two formats",
        {
            "t.csv": csv(
                day=[d if i % 2 else f"{d[6:]}-{d[3:5]}-{d[:2]}" for i, d in enumerate(DMY)]
            )
        },
        {**NAMED, "dates": "expand"},
        refuses="column 'day' holds dates in several forms, such as '.*' and '.*': "
        "write all in one",
    ),
    Case(
        "12 words among dates",
        {"t.csv": csv(day=["not known" if i % 6 == 0 else d for i, d in enumerate(DMY)])},
        {**NAMED, "dates": "expand"},
        refuses=r"column 'day' holds dates such as '.*', but also 'not known': "
        r".* --data.missing '\[not known\]'",
    ),
    Case(
        "12 another date for each row, to predict",
        {"t.csv": csv(y=[f"20{i // 28:02}-01-{1 + i % 28:02}" for i in range(N)])},
        NAMED,
        refuses="target 'y' holds dates, which no task predicts",
    ),
    # 13: Parquet
    Case(
        "13 days",
        {"t.parquet": arrow(day=[datetime.date(2024, 1 + i % 12, 15) for i in range(N)])},
        {**NAMED, "dates": "expand"},
        (numbers("day.month"), [1, 2, 3]),
    ),
    Case(
        "13 days refused",
        {"t.parquet": arrow(day=[datetime.date(2024, 1 + i % 12, 15) for i in range(N)])},
        NAMED,
        refuses="column 'day' holds dates: set --data.dates expand",
    ),
    Case(
        "13 days, new rows in a text file",
        {
            "t.parquet": arrow(day=[datetime.date(2024, 1 + i % 12, 15) for i in range(N)]),
            "new.csv": "x,day\n1,2024-05-15\n",
        },
        {**NAMED, "dates": "expand"},
        (numbers("day.month"), [5]),
    ),
    Case(
        "13 durations with gaps",
        {
            "t.parquet": arrow(
                wait=pa.array(
                    [None if i % 4 == 1 else datetime.timedelta(hours=i % 9) for i in range(N)]
                )
            )
        },
        NAMED,
        (numbers("wait"), [0, NAN, 7200]),
        says="column 'wait' holds durations: read as seconds",
    ),
    Case(
        "13 decimals",
        {"t.parquet": arrow(price=[decimal.Decimal(f"{i % 7}.25") for i in range(N)])},
        NAMED,
        (numbers("price"), [0.25, 1.25, 2.25]),
    ),
    Case(
        "13 decimals as classes",
        {"t.parquet": arrow(grade=[decimal.Decimal(i % 3) for i in range(N)])},
        {"targets": ["grade"]},
        (task("grade"), ("Classification", 0, 1, 2)),
    ),
    Case(
        "13 lists",
        {"t.parquet": arrow(e=[[float(i % 7), i % 5 / 2] for i in range(N)])},
        NAMED,
        (kinds, {"x": "Numeric", "e.0": "Numeric", "e.1": "Numeric"}),
        says="column 'e' holds lists: read as 2 columns",
    ),
    Case(
        "13 lists of several lengths",
        {"t.parquet": arrow(e=[[1.0] * (i % 3) for i in range(N)])},
        NAMED,
        (kinds, {"x": "Numeric"}),
        says="column 'e' holds lists: left out",
    ),
    Case(
        "13 timestamps to predict",
        {"t.parquet": arrow(due=[datetime.datetime(2024, 1, 1 + i % 9) for i in range(N)])},
        {"targets": ["due"]},
        refuses="target 'due' holds dates, which no task predicts: derive a number",
    ),
    Case(
        "13 a stored index",
        {
            "t.parquet": pd.DataFrame(
                {"x": X, "y": Y}, index=pd.Index([f"P{i}" for i in range(N)], name="patient")
            )
        },
        {**NAMED, "id": "patient"},
        (ids, ["P0", "P1", "P2"]),
    ),
    Case(
        "13 a stored index without a name",
        {"t.parquet": pd.DataFrame({"x": X, "y": Y}, index=SHUFFLED)},
        NAMED,
        (kinds, {"x": "Numeric"}),
        says="dropped __index_level_0__: an index that was saved with the table",
    ),
    Case(
        "13 bools with gaps",
        {"t.parquet": arrow(f=cycle(True, None, False))},
        NAMED,
        (numbers("f"), [1, NAN, 0]),
    ),
    Case(
        "13 bools to predict",
        {"t.parquet": arrow(f=cycle(True, False, None))},
        {"targets": ["f"]},
        (task("f"), ("BinaryClassification", "False", "True")),
    ),
    Case(
        "13 bytes",
        {"t.parquet": arrow(k=pa.array([i * 7 % 256 for i in range(N)], pa.uint8()))},
        NAMED,
        (numbers("k"), [0, 7, 14]),
    ),
    Case(
        "13 dictionaries",
        {"t.parquet": arrow(w=pa.array(cycle("b", "a", None)).dictionary_encode())},
        NAMED,
        (words("w"), ["b", "a", None]),
    ),
    Case(
        "13 long ids with gaps",
        {
            "t.parquet": arrow(
                k=pa.array([None if i == 1 else 2**53 + i for i in range(N)], pa.int64())
            )
        },
        {**NAMED, "id": "k"},
        (ids, [2**53, None, 2**53 + 2]),
    ),
    Case(
        "13 structs and bytes are left out",
        {"t.parquet": arrow(s=[{"a": i} for i in range(N)], b=[b"x"] * N, n=pa.nulls(N))},
        NAMED,
        (kinds, {"x": "Numeric"}),
        says=(
            "column 's' holds struct.*left out",
            "column 'b' holds binary: left out",
            "dropped n: constant",
        ),
    ),
    Case(
        "13 time zones",
        {
            "t.parquet": arrow(
                t=pa.array(
                    [datetime.datetime(2024, 7, 1 + i % 9, 6 + i % 3) for i in range(N)],
                    pa.timestamp("us", "Europe/Rome"),
                )
            )
        },
        {**NAMED, "dates": "expand"},
        (numbers("t.hour"), [8, 9, 10]),
    ),
    # 14: an index that to_csv wrote
    Case(
        "14 a shuffled index",
        {"t.csv": csv(**{"": SHUFFLED, "x": X})},
        NAMED,
        (kinds, {"x": "Numeric"}),
        says="dropped Unnamed: 0: an index that was saved with the table",
    ),
    Case(
        "14 an index in order",
        {"t.csv": csv(**{"": list(range(N)), "x": X})},
        NAMED,
        (kinds, {"x": "Numeric"}),
        says="dropped Unnamed: 0: ",
    ),
    Case(
        "14 an index of words",
        {"t.csv": csv(**{"": [f"P{i}" for i in range(N)], "x": X})},
        NAMED,
        (kinds, {"x": "Numeric"}),
        says="dropped Unnamed: 0: .*identifier",
    ),
    Case(
        "14 an index asked for",
        {"t.csv": csv(**{"": SHUFFLED, "x": X})},
        {**NAMED, "inputs": ["Unnamed: 0"]},
        (kinds, {"Unnamed: 0": "Numeric"}),
    ),
    Case(
        "14 an index saved twice",
        {"t.csv": csv(**{"": SHUFFLED, "Unnamed: 0": SHUFFLED[::-1], "x": X})},
        NAMED,
        (kinds, {"x": "Numeric"}),
        says=("dropped Unnamed: 0.1: an index", "dropped Unnamed: 0: an index"),
    ),
    # 16: numbers that single precision does not hold
    Case(
        "16 in training",
        {"t.csv": csv(x=[1e60 if i == 50 else v for i, v in enumerate(X)])},
        NAMED,
        refuses=r"t.csv row 51: column 'x' holds 1e\+60, which is beyond single precision",
    ),
    Case(
        "16 in new rows",
        {"t.csv": csv(), "new.csv": "x\n0.5\n1e60\n"},
        NAMED,
        refuses=r"new.csv row 2: column 'x' holds 1e\+60",
    ),
    Case(
        "16 fill values in new rows",
        {"t.csv": csv(), "new.csv": "x\n0.5\n9.969209968386869e+36\n"},
        NAMED,
        refuses=r"new.csv row 2: column 'x' holds 9.96921e\+36, where the training rows have",
    ),
    Case(
        "16 infinite",
        {"t.csv": csv(), "new.csv": "x\n0.5\n-inf\n"},
        NAMED,
        refuses="new.csv row 2: column 'x' holds -inf, which is not finite",
    ),
    Case(
        "16 fill values as missing",
        {"t.csv": csv(x=[1e60 if i == 50 else v for i, v in enumerate(X)])},
        {**NAMED, "missing": ["1e+60"]},
        (numbers("x"), X[:3]),
    ),
    Case(
        "16 in a target",
        {"t.csv": csv(z=[1e60 if i == 50 else v for i, v in enumerate(X)])},
        {"targets": ["z"]},
        refuses=r"t.csv row 51: target 'z' holds 1e\+60",
    ),
    # 17: names of rows
    Case(
        "17 gaps in ids",
        {"t.csv": csv(id=list(range(N))), "new.csv": "id,x\n1001,0.5\n,0.5\n1003,-0.5\n"},
        {**NAMED, "id": "id"},
        (ids, ["1001", None, "1003"]),
    ),
    Case(
        "17 a task named id",
        {"t.csv": csv(y=None, id=[2 * v for v in X])},
        {"targets": ["id"]},
        (ids, [1, 2, 3]),
    ),
    Case(
        "17 ids of words",
        {"t.csv": csv(id=[f"P-{i}" for i in range(N)])},
        {**NAMED, "id": "id"},
        (ids, ["P-0", "P-1", "P-2"]),
    ),
    # 18: kinds of files
    Case("18 endings in capitals", {"EXPORT.CSV": csv()}, NAMED, (numbers("x"), X[:3])),
    Case("18 packed, in capitals", {"EXPORT.CSV.GZ": csv()}, NAMED, (numbers("x"), X[:3])),
    Case(
        "18 another ending",
        {"t.data": csv()},
        NAMED,
        refuses="t.data: unknown kind of file; .*--data.format csv",
    ),
    Case(
        "18 another ending, said",
        {"t.data": csv()},
        {**NAMED, "format": "csv"},
        (numbers("x"), X[:3]),
    ),
    Case(
        "18 packed, another ending",
        {"t.test.gz": csv()},
        {**NAMED, "format": "csv"},
        (numbers("x"), X[:3]),
    ),
    Case(
        "18 no header",
        {"t.data": csv().split("\n", 1)[1]},
        {**NAMED, "format": "csv", "names": ["x", "y"]},
        (numbers("x"), X[:3]),
    ),
    Case(
        "18 no header, unsaid",
        {"t.csv": "5,1,5,a\n1,2,3,b\n"},
        NAMED,
        refuses="more than once; .*a file without a header needs --data.names",
    ),
    Case(
        "18 spaces between columns",
        {"t.dat": csv(" ")},
        {**NAMED, "format": "csv", "delimiter": "spaces"},
        (numbers("x"), X[:3]),
    ),
    Case(
        "18 another delimiter",
        {"t.csv": csv(";", x=COMMA)},
        NAMED,
        refuses="its name holds ';': set --data.delimiter ';'",
    ),
    Case(
        "18 ARFF",
        {
            "t.arff": "@relation r\n@attribute x numeric\n@attribute y {no,yes}\n@data\n"
            + csv().split("\n", 1)[1]
        },
        NAMED,
        (task(), ("BinaryClassification", "no", "yes")),
    ),
    Case(
        "18 patterns",
        {"t.csv": csv(y=None, Class1=cycle(0, 1), Class2=cycle(1, 0, 0))},
        {"targets": {"tags": "Class*"}},
        (task("tags"), ("MultilabelClassification", "Class1", "Class2")),
    ),
    Case(
        "18 a byte-order mark",
        {"t.csv": "\ufeff" + csv(end="\r\n")},
        {**NAMED, "inputs": ["x"]},
        (numbers("x"), X[:3]),
    ),
    Case("18 blank lines", {"t.csv": "\n" + csv(end="\n\n")}, NAMED, (numbers("x"), X[:3])),
    Case(
        "18 an empty column",
        {"t.csv": csv(e=[""] * N)},
        NAMED,
        (kinds, {"x": "Numeric"}),
        says="dropped e: constant in the training rows",
    ),
    Case(
        "18 one column",
        {"t.csv": "y\n" + "a\nb\n" * 30},
        NAMED,
        refuses="no input column is left; dropped: none",
    ),
    Case(
        "18 names that differ in punctuation",
        {"t.csv": csv(y=None, **{"a b": Y, "a.b": Y})},
        {"targets": ["a b", "a.b"]},
        refuses="differ in punctuation alone: a b, a.b",
    ),
    Case(
        "18 a star in a name",
        {"t.csv": csv(y=None, **{"k*": Y, "kk": Y})},
        {"targets": ["k*"], "drop": ["kk"]},
        (tasks, {"k": ["k*"]}),
    ),
    Case(
        "labels with signs",
        {"t.csv": csv(y=cycle("+1", "-1"))},
        NAMED,
        (task(), ("BinaryClassification", -1, 1)),
    ),
    # the positive class
    Case(
        "the order given is the order used",
        {"t.csv": csv(y=cycle("low", "high", "high"))},
        {**NAMED, "tasks": {"y": {"classes": ["low", "high"]}}},
        (labels(), ["low", "high", "high"]),
        says="two values: low, high; positive: high, the majority",
    ),
    Case(
        "the positive class is said",
        {"t.csv": csv(y=cycle("low", "high", "high"))},
        NAMED,
        says="positive: low",
        silent="the majority",
    ),
]


@pytest.mark.parametrize("case", READING, ids=[case.name for case in READING])
def test_case(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in case.files.items():
        if name != "gone":
            write(name, content)
    if case.refuses:
        with pytest.raises(ValueError, match=case.refuses) as caught:
            opened(case)
        assert "\n" not in str(caught.value)
        return
    table, told = opened(case)
    if case.gives:
        look, wanted = case.gives
        np.testing.assert_equal(look(table), wanted)
    for said in [case.says] if isinstance(case.says, str) else case.says:
        assert any(re_search(said, line) for line in told), told
    for unsaid in [case.silent] if isinstance(case.silent, str) else case.silent:
        assert not any(re_search(unsaid, line) for line in told), told


def re_search(pattern: str, line: str) -> bool:
    """Whether a line holds a pattern, in which brackets and dots of messages need no care."""
    return pattern in line or re.search(pattern, line) is not None


def opened(case: Case) -> tuple[Table, list[str]]:
    """The table, of new rows where the case has some, and what a person is told on the way."""
    files = list(case.files)
    table = Table(files[0], **case.settings)
    told = table.notes()
    for split in ("train", "val", "test", "predict"):
        assert len(table.split(split)) > 0
    new = [name for name in files if name.startswith("new")]
    if not new:
        return table, told
    Path("schema.json").write_text(json.dumps(table.schema()))
    for name in case.files.get("gone", "").split():
        Path(name).unlink()
    table = Table(new[0], **case.settings, schema_path="schema.json")
    table.split("predict")
    if "y" in table.table_files.frame().columns and case.settings["targets"] == ["y"]:
        table.split("test")
    return table, told + table.remarks
