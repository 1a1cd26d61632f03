"""Preferences of a trained network: --preference of evaluate and predict, and the front."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from src.analysis.record import StudyRecord, write_study
from src.cli.front import list_folders
from src.cli.preference import read_preference
from src.cli.runs import load_run
from tests.cli.calling import call, refused, table, words_for_table
from tests.launching import only_run, read_json


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, str]:
    """A run that takes preferences, and two of fixed weights, on one table of two tasks."""
    folder = tmp_path_factory.mktemp("front")
    (folder / "table.csv").write_text(table())
    found = {}
    variants = {
        "front": ("--model.sharing", "PaLoRA", "--max_epochs", 3),
        "first": ("--model.weights", "{income: 1.8, hours: 0.2}"),
        "second": ("--model.weights", "{income: 0.2, hours: 1.8}"),
    }
    for name, more in variants.items():
        ended = call("train", *words_for_table(folder), "--lr", 0.01, *more, "--name", name)
        assert ended.code == 0, ended
        found[name] = str(only_run(folder / "logs" / name))
    return found


def evaluate(run: str, folder: Path, *more: object) -> dict[str, float]:
    out = folder / "metrics.json"
    ended = call("evaluate", "--run", run, "--out", out, "--overwrite", *more)
    assert ended.code == 0, ended
    return read_json(out)


# -- one preference --------------------------------------------------------------------------------
def test_predictions_are_those_of_the_network_at_the_preference(runs, tmp_path):
    out = tmp_path / "predictions.csv"
    words = ("--run", runs["front"], "--split", "test", "--out", out)
    ended = call("predict", *words, "--preference", "{hours: 1}")
    assert ended.code == 0, ended
    found = pd.read_csv(out)

    model, data = load_run(runs["front"])
    rows = data.split("test")
    batch = rows[torch.arange(len(rows))]
    model.sharing.prefer({"income": 0.0, "hours": 1.0})
    with torch.no_grad():
        wanted = model.decode("hours", model(batch.inputs)["hours"])[""]
        model.sharing.prefer({"income": 0.5, "hours": 0.5})
        even = model.decode("hours", model(batch.inputs)["hours"])[""]
    np.testing.assert_allclose(found["hours"], wanted, rtol=1e-4)
    assert not np.allclose(wanted, even, rtol=1e-4)


def test_without_a_preference_it_is_even_and_numbers_are_shares(runs, tmp_path):
    plain = evaluate(runs["front"], tmp_path)
    even = evaluate(runs["front"], tmp_path, "--preference", "{income: 0.5, hours: 0.5}")
    assert plain == even
    one = evaluate(runs["front"], tmp_path, "--preference", "{hours: 1}")
    assert one != plain
    out = tmp_path / "metrics.json"
    ended = call(
        "evaluate",
        "--run",
        runs["front"],
        "--preference",
        "{hours: 3}",
        "--out",
        out,
        "--overwrite",
    )
    assert "--preference sums to 3, not to 1; it is taken as income 0, hours 1" in ended.err
    assert json.loads(out.read_text()) == one


def test_shares():
    assert read_preference({"a": 0.25, "b": 0.75}, ["a", "b", "c"]) == {
        "a": 0.25,
        "b": 0.75,
        "c": 0,
    }


@pytest.mark.parametrize(
    ("run", "value", "says"),
    [
        ("front", "{incom: 1}", ["--preference names 'incom'", "did you mean 'income'"]),
        ("front", "{income: -1, hours: 2}", ["'income' -1", "at least 0"]),
        ("front", "{income: .inf}", ["'income' inf", "finite"]),
        ("front", "{income: 0}", ["no task a share"]),
        ("front", "0.3", ["preference", "dict"]),
        ("first", "{income: 1}", ["HardSharing is not", "--model.sharing PaLoRA"]),
    ],
)
@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_bad_preferences_are_refused_in_one_line(runs, tmp_path, verb, run, value, says):
    out = ("--out", tmp_path / "p.csv") if verb == "predict" else ()
    refused(call(verb, "--run", runs[run], "--preference", value, *out), says)
    assert not (tmp_path / "p.csv").exists()


# -- the front -------------------------------------------------------------------------------------
def test_the_front_is_evaluated_drawn_and_measured_beside_fixed_weights(runs, tmp_path):
    beside = f"{runs['first']},{runs['second']}"
    words = ("--run", runs["front"], "--front", 3, "--split", "val")
    ended = call("evaluate", *words, "--beside", beside)
    assert ended.code == 0, ended
    folder = Path(runs["front"])
    record = read_json(folder / "front.json")
    assert [point["preference"] for point in record["front"]] == [
        {"income": 1.0, "hours": 0.0},
        {"income": 0.5, "hours": 0.5},
        {"income": 0.0, "hours": 1.0},
    ]
    assert [point["preference"]["income"] for point in record["beside"]] == [1.8, 0.2]
    for kind in ("png", "svg", "pdf"):
        assert (folder / f"front.{kind}").stat().st_size > 1000

    # each point is what evaluate says of it alone
    alone = evaluate(runs["front"], tmp_path, "--split", "val", "--preference", "{income: 1}")
    first = record["front"][0]
    assert {f"val/{key}": value for key, value in first["metrics"].items()} == alone
    assert first["scores"]["hours"] == alone["val/hours/r2"]
    fixed = evaluate(runs["second"], tmp_path, "--split", "val")
    assert record["beside"][1]["metrics"]["score"] == fixed["val/score"]

    points = record["front"] + record["beside"]
    scores = np.array([[p["scores"][task] for task in ("income", "hours")] for p in points])
    beaten = [
        any((other >= own).all() and (other > own).any() for other in scores) for own in scores
    ]
    kept = scores[~np.array(beaten)]
    lowest = np.where(kept.min(0) < scores.max(0), kept.min(0), scores.min(0))
    wanted = lowest - 0.1 * (scores.max(0) - lowest)
    np.testing.assert_allclose(list(record["reference"].values()), wanted)
    assert list(record["best"].values()) == scores.max(0).tolist()
    assert record["share"].keys() == {"front", "beside"}
    assert all(0 <= share <= 1 for share in record["share"].values())
    assert f"PaLoRA {record['share']['front']:.3f} with 3 points" in ended.out


def test_a_folder_of_runs_stands_beside(runs, tmp_path):
    out = tmp_path / "own.json"
    logs = Path(runs["front"]).parents[1]
    ended = call("evaluate", "--run", runs["front"], "--front", 2, "--beside", logs, "--out", out)
    assert ended.code == 0, ended
    assert len(read_json(out)["beside"]) == 2  # all but the run itself
    assert (tmp_path / "front.png").is_file()


def test_the_runs_of_a_study_stand_beside(runs, tmp_path):
    root = Path(runs["first"]).parents[1]
    names = {key: str(Path(runs[key]).relative_to(root)) for key in ("first", "second")}
    trials = {
        key: {"command": [], "run": run, "status": "finished", "error": None, "seconds": 1.0}
        for key, run in {**names, "planned": None}.items()
    }
    record = dict.fromkeys(StudyRecord.__annotations__) | {
        **{"name": "s", "command": "", "started": "", "finished": True, "trials": trials},
        **{"tasks": {}, "seeds": [0], "rows": []},
    }
    (root / "study").mkdir()
    write_study(root / "study", record)
    assert [str(path) for path in list_folders(str(root / "study"))] == [
        runs["first"],
        runs["second"],
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--front", 1), ["--front 1", "at least 2"]),
        (("--front", 600), ["600 preferences", "choose fewer"]),
        (("--front", 3, "--preference", "{income: 1}"), ["leave --preference out"]),
        (("--beside", "somewhere"), ["--beside goes with --front"]),
        (("--front", 3, "--beside", "nowhere"), ["--beside nowhere", "no trained run"]),
    ],
)
def test_what_does_not_go_with_a_front_is_refused(runs, words, says):
    refused(call("evaluate", "--run", runs["front"], *words), says)


def test_fronts_of_other_runs_are_refused(runs, tmp_path):
    refused(call("evaluate", "--run", runs["first"], "--front", 3), ["HardSharing is not"])
    both = f"{runs['front']},{runs['front']}"
    refused(call("evaluate", "--run", both, "--front", 3), ["one run, not"])
    (tmp_path / "table.csv").write_text(table(40))
    ended = call("train", *words_for_table(tmp_path), "--name", "other")
    assert ended.code == 0, ended
    other = only_run(tmp_path / "logs" / "other")
    refused(
        call("evaluate", "--run", runs["front"], "--front", 3, "--beside", other),
        ["cannot stand beside", "other data"],
    )
