"""A small run is audited, calibrated and used: the commands and what they leave behind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from src.cli.calibrated import describe_calibration
from src.cli.runs import load_run
from src.run import Run
from src.tasks import BinaryClassification
from src.tasks.calibration.record import read_calibration, read_conformal
from tests.cli.calling import call, refused

ONLY = ("--only", "[calibration]")
ROWS = 600


def write_table(folder: Path) -> Path:
    """Writes a table of two groups with labels of four kinds, some of them missing."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, ROWS))
    y = 3 * x + (1 + z**2) * rng.normal(size=ROWS)
    frame = pd.DataFrame(
        {
            "x": x.round(4),
            "z": z.round(4),
            "sex": np.where(rng.random(ROWS) < 0.5, "F", "M"),
            "income": np.where(x + rng.normal(size=ROWS) > 0.3, "high", "low"),
            "grade": np.digitize(x + z + rng.normal(size=ROWS), [-1, 1]).astype(str),
            "hours": y.round(3),
            "range": (y + rng.normal(size=ROWS)).round(3),
        }
    )
    frame["grade"] = "g" + frame["grade"]
    frame.loc[::50, "income"] = None
    path = folder / "people.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, and runs of two seeds."""
    folder = tmp_path_factory.mktemp("calibration")
    path = write_table(folder)
    for seed in (0, 1):
        words = [
            *("--data", "Table", "--data.path", path, "--data.drop", "[sex]"),
            *("--data.targets", "[income, grade, hours, range]", "--data.val_fraction", 0.3),
            *("--data.tasks.range", "Quantiles", "--max_epochs", 4, "--lr", 0.02),
            *("--model.encoder.width", 8, "--accelerator", "cpu", "--no_test", "--seed", seed),
            *("--logs", folder / "logs", "--name", f"seed{seed}"),
        ]
        ended = call("train", *words)
        assert ended.code == 0, ended.err
    return folder


def find_run(folder: Path, seed: int) -> Path:
    (path,) = (folder / "logs" / f"seed{seed}").iterdir()
    return path


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """A run without a calibration, with predictions of its test rows beside it."""
    run = find_run(folder, 0)
    kept = folder / "plain"
    shutil.copytree(run, kept)
    predict(kept, folder / "plain.csv")
    return kept


@pytest.fixture(scope="module")
def run(folder: Path, plain: Path) -> Path:
    """The same run, calibrated."""
    path = find_run(folder, 0)
    ended = call("audit", "--run", path, *ONLY, "--calibrate", "--groups", "[sex]")
    assert ended.code == 0, ended.err
    assert "hours: outputs stay as they are" in ended.out
    assert "income: Platt's scaling" in ended.out
    assert "grade: temperature" in ended.out
    assert "range: levels of quantiles" in ended.out
    return path


def predict(run: Path, out: Path, *words: object) -> pd.DataFrame:
    ended = call("predict", "--run", run, "--split", "test", "--out", out, "--overwrite", *words)
    assert ended.code == 0, ended.err
    return pd.read_csv(out)


def test_files_that_an_audit_writes(run: Path) -> None:
    found = json.loads((run / "audit" / "calibration.json").read_text())
    states = {(one["task"], one["split"], one["state"]) for one in found["measures"]}
    assert ("income", "test", "after") in states
    assert ("hours", "test", "after") not in states
    groups = {one["group"] for one in found["coverage"] if one["task"] == "hours"}
    assert groups == {"", "F", "M"}

    bins = pd.read_csv(run / "audit" / "calibration.csv")
    of_income = bins[(bins.task == "income") & (bins.split == "test") & (bins.state == "after")]
    known = pd.read_csv(run.parents[2] / "plain.csv")["true.income"].notna().sum()
    assert of_income.rows.sum() == known
    assert (run / "audit" / "calibration.png").stat().st_size > 10_000


def test_calibration_improves_the_likelihood_of_the_rows_that_it_is_fitted_on(run: Path) -> None:
    found = json.loads((run / "audit" / "calibration.json").read_text())
    values = {}
    for one in found["measures"]:
        if one["split"] == "val" and one["task"] == "grade":
            values[one["state"]] = one["labels"][0]["values"]["NLL"]
    assert values["after"] < values["before"]


def test_an_audit_without_a_fit_measures_outputs_as_they_are(plain: Path) -> None:
    bare = call("audit", "--run", plain, *ONLY)
    assert "outputs are as the network gives them" in bare.out
    assert "after" not in bare.out
    assert not Run(plain).calibration.exists()


def test_decisions_stay_and_probabilities_follow_the_map(run: Path, plain: Path) -> None:
    before = pd.read_csv(run.parents[2] / "plain.csv")
    after = predict(run, run.parents[2] / "after.csv")
    assert (after["income"] == before["income"]).all()
    assert (after["grade"] == before["grade"]).all()
    assert np.array_equal(after["hours"], before["hours"])

    column = "income.p_low"
    record = json.loads(Run(run).calibration.read_text())["tasks"]["income"]["calibrator"]
    logits = np.log(before[column] / (1 - before[column]))
    expected = 1 / (1 + np.exp(-(record["slopes"][0] * logits + record["intercepts"][0])))
    np.testing.assert_allclose(after[column], expected, rtol=1e-5)

    again = predict(run, run.parents[2] / "again.csv", "--uncalibrated")
    pd.testing.assert_frame_equal(again, before)


def test_evaluate_says_that_outputs_are_calibrated(run: Path) -> None:
    ended = call("evaluate", "--run", run, "--out", run / "c.json")
    assert "calibrated on validation rows: income, grade, range" in ended.err
    bare = call("evaluate", "--run", run, "--out", run / "u.json", "--uncalibrated")
    assert "calibrated" not in bare.err
    after, before = (json.loads((run / name).read_text()) for name in ("c.json", "u.json"))
    assert after["test/grade/loss"] != before["test/grade/loss"]
    for metric in ("income/accuracy", "income/f1", "income/auroc", "hours/mae"):
        assert after[f"test/{metric}"] == pytest.approx(before[f"test/{metric}"], abs=1e-6)


def test_sets_and_intervals_hold_the_label(run: Path) -> None:
    found = predict(run, run.parents[2] / "sets.csv", "--coverage", 0.8, "--sets", "aps")
    known = found[found["true.income"].notna()]
    rows = zip(known["income.set"], known["true.income"], strict=True)
    held = np.mean([label in words.split("|") for words, label in rows])
    assert held > 0.75
    for name in ("hours", "range"):
        inside = found[f"{name}.low"] <= found[f"true.{name}"]
        inside &= found[f"true.{name}"] <= found[f"{name}.high"]
        # validation and test rows are few
        assert inside.mean() == pytest.approx(0.8, abs=0.15)


def test_python_reads_what_commands_use(run: Path) -> None:
    model, data = load_run(run)
    assert set(model.calibration) == {"income", "grade", "range"}
    calibration = read_calibration(Run(run).calibration, model.tasks)
    assert calibration is not None
    assert calibration.groups == ("sex",)
    weights = torch.load(Run(run).checkpoint(), weights_only=True)
    conformal = read_conformal(Run(run).calibration, model.tasks, weights)
    assert set(conformal) == {"income", "grade", "hours", "range"}
    assert read_conformal(Run(run).calibration, model.tasks, {**weights, "epoch": 77}) == {}

    rows = data.split("test")[torch.arange(5)]
    assert conformal["hours"].interval(model(rows.inputs)["hours"], 0.8).shape == (5, 1, 2)
    bare, _ = load_run(run, calibrated=False)
    assert not bare.calibration
    own, chosen = bare.chosen_tasks["income"], model.chosen_tasks["income"]
    assert isinstance(own, BinaryClassification) and isinstance(chosen, BinaryClassification)
    moved = model.calibration["income"].move_thresholds(own)
    assert chosen == moved != own


def test_an_ensemble_averages_calibrated_outputs(run: Path, folder: Path) -> None:
    other = find_run(folder, 1)
    column = "income.p_low"
    one = predict(run, folder / "one.csv")[column]
    two = predict(other, folder / "two.csv")[column]
    words = ("--run", f"{run},{other}", "--split", "test", "--out", folder / "both.csv")
    ended = call("predict", *words, "--overwrite")
    assert "income (1 of 2 runs)" in ended.err
    both = pd.read_csv(folder / "both.csv")[column]
    np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-5)


@pytest.mark.slow
def test_a_resumed_run_trains_uncalibrated(run: Path, plain: Path, folder: Path) -> None:
    results = {}
    for name, source in (("calibrated", run), ("bare", plain)):
        copied = folder / f"resumed-{name}"
        shutil.copytree(source, copied)
        ended = call("train", "--resume", copied, "--max_epochs", 5, "--no_test")
        assert ended.code == 0, ended.err
        results[name] = json.loads((copied / "metrics.json").read_text())["validation"]
    assert results["calibrated"] == results["bare"]

    # the calibration is of weights before this epoch
    last = call("evaluate", "--run", folder / "resumed-calibrated", "--checkpoint", "last")
    assert "is of other weights" in last.err
    words = ("--run", folder / "resumed-calibrated", "--out", folder / "no.csv")
    sets = call("predict", *words, "--checkpoint", "last", "--coverage", 0.9)
    assert sets.code == 2
    assert "has no conformity scores of these weights" in sets.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--coverage", 1.5), "--coverage is 1.5; it must be between 0 and 1"),
        (("--coverage", 0), "--coverage is 0; it must be between 0 and 1"),
        (("--coverage", 0.9, "--sets", "hps"), "--sets is 'hps'; it must be lac or aps"),
        (("--coverage", 0.9, "--uncalibrated"), "leave out --uncalibrated"),
    ],
)
def test_wrong_flags(run: Path, words: tuple[object, ...], says: str) -> None:
    refused(call("predict", "--run", run, "--out", run / "no.csv", *words), [says])


def test_coverage_of_a_run_that_is_not_calibrated(plain: Path) -> None:
    words = ("--run", plain, "--out", plain / "no.csv", "--coverage", 0.9)
    refused(call("predict", *words), ["has no conformity scores", "src.audit --run", "--calibrate"])


def test_new_rows_calibrate_no_run(run: Path, folder: Path) -> None:
    new = folder / "new.csv"
    pd.read_csv(folder / "people.csv").head(50).to_csv(new, index=False)
    words = ("--run", run, *ONLY, "--calibrate", "--data.path", new)
    refused(call("audit", *words), ["new rows", "its own validation rows"])


def test_a_coverage_that_needs_more_rows(run: Path, folder: Path) -> None:
    out = folder / "wide.csv"
    words = ("--run", run, "--split", "test", "--out", out, "--overwrite", "--coverage", 0.999)
    ended = call("predict", *words)
    assert "needs 999 validation rows" in ended.err
    found = pd.read_csv(out)
    assert np.isinf(found["hours.high"]).all()
    assert (found["income.set"] == "high|low").all()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"slopes": [', '"slopes": ["', "it is no JSON"),
        ('"kind": "Platt"', '"kind": "os.system"', "kind is 'os.system'"),
        ('"kind": "Platt"', '"kind": "Temperature"', "intercepts belongs to nothing"),
        ('"income": {', '"wealth": {', "tasks.wealth is no task"),
        ('"lac": [', '"map": [', "has map, aps, where a task has lac and aps"),
        ('"step": ', '"step": -', "checkpoint.step"),
    ],
)
def test_a_damaged_file_is_one_line(run: Path, folder: Path, old: str, new: str, says: str) -> None:
    damaged = folder / "damaged"
    if not damaged.exists():
        shutil.copytree(run, damaged)
    text = Run(run).calibration.read_text()
    assert old in text
    Run(damaged).calibration.write_text(text.replace(old, new, 1))
    ended = call("predict", "--run", damaged, "--out", folder / "no.csv")
    refused(ended, ["calibration.json is damaged; remove it", says])


def test_nothing_is_said_of_a_run_without_a_calibration(plain: Path) -> None:
    model, _ = load_run(plain)
    assert describe_calibration([model]) == []
