"""python -m src.audit --data: what it prints and writes, and that the flags it names mend."""

import json
import re
import shlex

import numpy as np
import pandas as pd
import pytest

from tests.cli.calling import call


@pytest.fixture
def people(tmp_path):
    """A table with a leak and a column of groups."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    y = np.where(x + rng.normal(size=300) > 0, "yes", "no")
    frame = pd.DataFrame(
        {
            "x": x.round(6),
            "granted": np.where(y == "yes", "1", "0"),
            "who": [f"P{i * 7 % 60}" for i in range(300)],
            "y": y,
        }
    )
    path = tmp_path / "people.csv"
    frame.to_csv(path, index=False)
    return path


def flags(path):
    return ["--data", "Table", "--data.path", str(path), "--data.targets", "[y]"]


def test_findings_are_printed_and_written_and_mended(people, tmp_path):
    out = tmp_path / "findings.json"
    ended = call("audit", *flags(people), "--out", out)
    assert ended.code in (0, None), ended.err
    assert ended.out.startswith("y: 210 rows to train, 45 to validate, 45 to test\n")
    assert ended.out.index("high") < ended.out.index("medium")

    found = json.loads(out.read_text())
    assert found["rows"] == {"train": 210, "val": 45, "test": 45}
    assert [(one["severity"], one["check"], one["columns"]) for one in found["findings"]] == [
        ("high", "leak", ["granted"]),
        ("medium", "groups", ["who"]),
    ]
    mends = [word for one in found["findings"] for word in shlex.split(one["flag"])]
    assert mends == ["--data.drop", "[granted]", "--data.group", "who"]
    ended = call("audit", *flags(people), *mends)
    assert ended.code in (0, None), ended.err
    assert "nothing suspicious was found" in ended.out


def test_a_training_prints_the_worst_as_notes(people, tmp_path):
    ended = call("train", *flags(people), "--max_epochs", 1, "--logs", tmp_path / "logs")
    notes = re.findall("(?m)^note: .*", ended.out)
    assert len(notes) == 2
    assert notes[0].startswith("note: 'granted' alone tells y")
    assert notes[1].endswith("--data.group who keeps the rows of one on one side")


def test_data_that_are_no_table_and_no_network_reads(people):
    ended = call("audit", "--data", "Digits")
    assert "nothing suspicious was found" in ended.out
    assert "Digits: no columns of a table are its inputs" in ended.err
    # an MLP, the default, reads no texts: the audit needs no network
    ended = call("audit", *flags(people), "--data.text", "[who]", "--data.drop", "[granted]")
    assert ended.code in (0, None), ended.err
    assert "groups" not in ended.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "findings.txt"], "--out findings.txt: findings are written to a .json file"),
        (["--out", "nowhere/f.json"], "there is no folder nowhere"),
        (["--data.time", "when"], "data.time names 'when', which is no column"),
        (["--data.nothing", "1"], "unknown key 'data.nothing'"),
        (["--split", "test"], "--split is for the audit of a run: name it, too, with --run RUN"),
    ],
)
def test_wrong_input_is_one_line(people, words, says):
    ended = call("audit", *flags(people), *words)
    assert ended.code == 2
    assert says in ended.err
    assert len(ended.err.strip().splitlines()) == 1
