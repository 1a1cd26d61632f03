"""What an audit of a table finds, and that the flags it names mend it; silence on honest data."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml

from src.data import Table
from src.data.audit.finding import Finding
from tests.data.tables.audit.test_table_audit import TARGETS, clean

N = 600
REAL = Path(os.environ.get("MTL_DATA", "nowhere")) / "adult"


class Case(NamedTuple):
    """A table with one thing wrong."""

    name: str
    frame: Callable[[], pd.DataFrame]
    check: str
    severity: str
    says: str
    settings: dict[str, Any] = {}
    targets: list[str] = TARGETS


def made(**columns: Any) -> pd.DataFrame:
    frame = clean(n=N)
    for name, make in columns.items():
        frame[name] = make(frame) if callable(make) else make
    return frame


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def filled(frame: pd.DataFrame, where: Any) -> Any:
    return pd.Series(rng(3).normal(size=len(frame)).round(3)).where(where)


def days(frame: pd.DataFrame) -> Any:
    start = pd.Timestamp("2024-01-01")
    return (start + pd.to_timedelta(np.arange(len(frame)), unit="D")).strftime("%Y-%m-%d")


def repeated() -> pd.DataFrame:
    frame = clean(n=N)
    frame.loc[N // 2 :] = frame.loc[: N // 2 - 1].to_numpy()
    return frame.infer_objects()


def skewed() -> pd.DataFrame:
    """A column whose values are large in the rows that test."""
    side = np.repeat(["train", "val", "test"], [400, 100, 100])
    return made(side=side, x=lambda f: (f["x"] + 3 * (side == "test")).round(6))


CASES = [
    Case(
        "a heavy-tailed copy",
        lambda: made(total=lambda f: np.exp(4 * f["score"]).round(9), cost=lambda f: f["score"]),
        *("leak", "high", "'total' alone tells cost"),
        {"drop": ["score"]},
        ["cost"],
    ),
    Case(
        "one of many classes",
        lambda: made(
            letter=[f"c{i:02d}" for i in rng().integers(0, 30, N)],
            code=lambda f: f["letter"].map(lambda word: f"k{(int(word[1:]) * 7) % 30}"),
        ),
        *("leak", "high", "'code' alone tells letter"),
        {},
        ["letter"],
    ),
    Case(
        "a copy of one of several labels",
        lambda: made(
            a=rng(1).integers(0, 2, N), b=rng(2).integers(0, 2, N), again=lambda f: f["a"]
        ),
        *("leak", "high", "'again' alone tells a"),
        {"targets": {"both": ["a", "b"]}},
    ),
    Case(
        "filled only where the label is yes",
        lambda: made(reason=lambda f: filled(f, f["y"] == "yes")),
        *("leak", "high", "'reason' alone tells y almost without fail"),
    ),
    Case(
        "filled in some of the rows with yes",
        lambda: made(reason=lambda f: filled(f, (f["y"] == "yes") & (rng(5).random(N) < 0.4))),
        *("leak", "medium", "'reason' is filled only where y is yes ("),
    ),
    Case(
        "filled only where a number is high",
        lambda: made(late=lambda f: filled(f, f["score"] > 1)),
        *("leak", "high", "'late' is filled only where score is high"),
        {},
        ["score"],
    ),
    Case(
        "a name that says so",
        lambda: made(
            outcome_code=lambda f: np.where(rng(4).random(N) < 0.04, "z", f["mood"].str.upper())
        ),
        *("leak", "medium", "'outcome_code' alone tells mood with a score of 0.9"),
        {},
        ["mood"],
    ),
    Case(
        "the time between two dates",
        lambda: made(
            ordered=days,
            wait=rng(6).integers(0, 90, N),
            delivered=lambda f: (
                pd.to_datetime(f["ordered"]) + pd.to_timedelta(f["wait"], unit="D")
            ).dt.strftime("%Y-%m-%d"),
        ),
        *("leak", "high", "wait is the time from 'ordered' to 'delivered'"),
        {"dates": "expand", "split_column": None},
        ["wait"],
    ),
    Case("copies", repeated, "copies", "high", "rows ("),
    Case(
        "days in order, and labels with them",
        lambda: made(day=days, score=lambda f: (f["score"] + np.arange(N) / 100).round(3)),
        *(
            "time order",
            "medium",
            "'day' holds times, rows are split at random, and score is alike",
        ),
        {"drop": ["x"], "categorical": ["day"]},
        ["score"],
    ),
    Case(
        "days that tell nothing",
        lambda: made(day=days),
        *("time order", "low", "'day' holds times, and rows are split at random"),
        {"drop": ["day"], "stratify": ["y"]},
    ),
    Case(
        "groups in a stratified split",
        lambda: made(who=[f"P{i * 7 % 60}" for i in range(N)]),
        *("groups", "medium", "rows of train and test share values of 'who'"),
        {"stratify": ["y"]},
    ),
    Case(
        "an identifier beside another dropped column",
        lambda: made(patient_id=rng().choice(10**6, N, replace=False), note="n"),
        *("identifier", "medium", "patient_id: another whole number in each row"),
        {"drop": ["z"]},
    ),
    Case(
        "a constant",
        lambda: made(country="UK"),
        *("constant", "low", "'country' has one value in all training rows, and is no input"),
    ),
    Case(
        "nothing at all",
        lambda: made(fax=np.nan),
        *("constant", "low", "'fax' has no value at all, and is no input"),
    ),
    Case(
        "hardly a value",
        lambda: made(fax=lambda f: filled(f, f.index % 40 == 3)),
        *("empty", "low", "'fax' has a value in less than 5% of the training rows"),
    ),
    Case(
        "a shifted column",
        skewed,
        *("shift", "medium", "test rows are unlike training rows in 'x' (distance"),
        {"split_column": "side"},
    ),
    Case(
        "a code for missing",
        lambda: made(z=lambda f: (f["z"] / 10).where(f.index % 20 != 3, -999)),
        *("missing code", "medium", "'z' holds -999 in 30 rows"),
        {"missing": ["unknown"]},
    ),
]


def open_table(folder: Path, case: Case, mended: dict[str, Any]) -> Table:
    path = folder / "t.csv"
    case.frame().to_csv(path, index=False)
    return Table(str(path), **{"targets": case.targets, **case.settings, **mended})


def read_flags(finding: Finding) -> dict[str, Any]:
    assert finding.mend is not None
    words = shlex.split(finding.mend.write_flags())
    pairs = zip(words[::2], words[1::2], strict=True)
    return {key.removeprefix("--data."): yaml.safe_load(value) for key, value in pairs}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_found_is_mended_by_its_flag(tmp_path, case):
    table = open_table(tmp_path, case, {})
    found = [f for f in table.audit(thorough=True) if case.says in f.sentence]
    assert found, [f.sentence for f in table.audit(thorough=True)]
    assert {(f.check, f.severity) for f in found} == {(case.check, case.severity)}

    settings = read_flags(found[0])
    after = open_table(tmp_path, case, settings).audit(thorough=True)
    assert [f.sentence for f in after if case.says in f.sentence] == []


@pytest.mark.parametrize("seed", range(10))
def test_honest_tables_are_passed_in_silence_by_every_check(tmp_path, seed):
    """Strong inputs, missing values that tell a little, and small sides are no findings."""
    frame = clean(n=N, seed=seed)
    draws = rng(seed + 50)
    frame["strong"] = (frame["score"] + draws.normal(size=N) / 3).round(6)
    frame["told"] = np.where(draws.random(N) < 0.1, "no", frame["y"])
    odds = np.where(frame["y"] == "yes", 0.5, 0.1)
    frame["gaps"] = pd.Series(draws.normal(size=N).round(3)).where(draws.random(N) > odds)
    frame["year_built"] = draws.integers(1900, 2020, N)
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    assert [f.sentence for f in Table(str(path), TARGETS).audit(thorough=True)] == []


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_few_values_are_passed_in_silence(tmp_path, seed):
    draws = rng(seed)
    frame = pd.DataFrame(draws.integers(0, 3, (400, 3)), columns=["a", "b", "c"])
    frame["y"] = draws.choice(["no", "yes"], 400)
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert Table(str(tmp_path / "t.csv"), ["y"]).audit(thorough=True) == []


@pytest.mark.skipif(not REAL.is_dir(), reason="MTL_DATA names no folder with adult in it")
def test_adult_has_copies_and_nothing_else():
    from src.data import Adult

    data = Adult(str(REAL))
    found = data.audit(thorough=True)
    assert [(finding.check, finding.severity) for finding in found] == [("copies", "low")] * 2
    assert not [note for note in data.notes() if note.startswith("note: ")]
