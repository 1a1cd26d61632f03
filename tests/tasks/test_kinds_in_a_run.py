"""One table with a task of each kind: trained, evaluated, predicted, on any topology."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import (
    cohen_kappa_score,
    d2_tweedie_score,
    mean_absolute_error,
    mean_pinball_loss,
    mean_poisson_deviance,
    r2_score,
)

from src.data import Table
from src.tasks.survival_metrics import compute_concordance
from tests.cli.calling import call, refused
from tests.launching import curves, furthest, launch, only_run, read_json, train, weights
from tests.toy import KillAt

ROWS = 241  # a prime, which no number of processes divides
TARGETS = "{grade: grade, stars: stars, visits: visits, hours: hours, ic50: ic50, death: [t, died]}"


def write_table(path: Path) -> pd.DataFrame:
    """A table of ordered classes, counts with an exposure, numbers, bounds, and times of events."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3)).round(4)
    noise = rng.normal(size=(ROWS, 4))
    frame = pd.DataFrame(x, columns=["x1", "x2", "x3"])
    level = np.digitize(x[:, 0] + noise[:, 0] / 2, [-0.7, 0.7])
    frame["grade"] = np.array(["low", "mid", "high"])[level]
    frame["stars"] = np.clip(np.round(3 + x[:, 1] + noise[:, 1] / 2), 1, 5).astype(int)
    frame["days"] = rng.integers(5, 60, ROWS)
    frame["visits"] = rng.poisson(np.exp(x[:, 2] / 2 - 2) * frame["days"])
    frame["hours"] = (40 + 5 * x[:, 1] + noise[:, 2]).round(2)
    measured = (5 + 3 * x[:, 0] + noise[:, 3]).round(2)
    frame["ic50"] = [f"> {8}" if y > 8 else "<2" if y < 2 else f"{y}" for y in measured]
    event = rng.exponential(np.exp(1 + 0.7 * x[:, 0]))
    end = rng.exponential(6, ROWS)
    frame["t"] = np.minimum(event, end).round(3)
    frame["died"] = np.where(event <= end, "yes", "no")
    for name in ("grade", "stars", "visits", "days", "hours", "ic50", "t", "died"):
        # the later the row, the more is missing
        gone = rng.random(ROWS) < np.linspace(0, 0.3, ROWS)
        frame[name] = frame[name].astype(object).where(~gone, None)
    frame["part"] = [["train", "train", "val", "test"][k % 4] for k in range(ROWS)]
    frame.to_csv(path, index=False)
    return frame


def words(folder: Path, epochs: int = 3) -> list[object]:
    """Flags that train on the table in a moment."""
    return [
        *("--data", "Table", "--data.path", folder / "kinds.csv", "--data.targets", TARGETS),
        *("--data.tasks.grade", "Ordinal", "--data.tasks.grade.classes", "[low, mid, high]"),
        *("--data.tasks.stars", "Ordinal", "--data.tasks.stars.method", "cumulative"),
        *("--data.tasks.visits", "Counts", "--data.tasks.visits.offset", "days"),
        *("--data.tasks.visits.distribution", "negative_binomial"),
        *("--data.tasks.hours", "Quantiles", "--data.tasks.hours.levels", "[0.2, 0.5, 0.9]"),
        *("--data.tasks.ic50", "CensoredRegression", "--data.tasks.ic50.loss", "huber"),
        *("--data.tasks.death", "Survival", "--data.tasks.death.intervals", 4),
        *("--data.split_column", "part", "--accelerator", "cpu", "--batch_size", 16),
        *("--model.encoder.width", 8, "--max_epochs", epochs, "--lr", 0.02),
        *("--logs", folder / "logs"),
    ]


class Trained(NamedTuple):
    """The folder of the table, that of a run, and what the run has said."""

    folder: Path
    run: Path
    out: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on the table."""
    folder = tmp_path_factory.mktemp("kinds")
    write_table(folder / "kinds.csv")
    ended = call("train", *words(folder), "--name", "run")
    assert ended.code == 0, ended.err
    return Trained(folder, only_run(folder / "logs" / "run"), ended.out)


@pytest.fixture(scope="module")
def predicted(trained: Trained) -> pd.DataFrame:
    """Predictions of the test rows, and their labels."""
    folder, run, _ = trained
    out = folder / "p.parquet"
    ended = call("predict", "--run", run, "--split", "test", "--out", out)
    assert ended.code == 0, ended.err
    return pd.read_parquet(out)


def test_an_evaluation_gives_the_numbers_of_the_run(trained: Trained) -> None:
    folder, run, _ = trained
    out = folder / "metrics.json"
    assert call("evaluate", "--run", run, "--out", out).code == 0
    tested = read_json(run / "metrics.json")["test"]
    assert read_json(out) == pytest.approx(tested, rel=1e-6)
    for task, metric in (("grade", "quadratic_kappa"), ("visits", "d2"), ("death", "concordance")):
        assert -1 <= tested[f"test/{task}/{metric}"] <= 1
    assert all(np.isfinite(list(tested.values())))


def test_predictions_have_the_metrics_of_the_run(trained: Trained, predicted: pd.DataFrame) -> None:
    tested = read_json(trained.run / "metrics.json")["test"]

    def known(*columns: str) -> pd.DataFrame:
        return predicted.dropna(subset=[f"true.{column}" for column in columns])

    order = ["low", "mid", "high"]
    rows = known("grade")
    ranks = [rows[name].map(order.index) for name in ("true.grade", "grade")]
    kappa = cohen_kappa_score(*ranks, weights="quadratic")
    assert tested["test/grade/quadratic_kappa"] == pytest.approx(kappa, rel=1e-6)
    shares = rows[[f"grade.p_{name}" for name in order]].sum(axis=1)
    np.testing.assert_allclose(shares, 1, rtol=1e-6)

    rows = known("stars")
    error = mean_absolute_error(rows["true.stars"].astype(int), rows["stars"])
    assert tested["test/stars/mae"] == pytest.approx(error, rel=1e-6)

    rows = known("visits", "visits.days")
    expected = rows["visits"] * rows["true.visits.days"]
    counts = rows["true.visits"].astype(float)
    deviance = mean_poisson_deviance(counts, expected)
    assert tested["test/visits/poisson_deviance"] == pytest.approx(deviance, rel=1e-5)
    assert (rows["visits.dispersion"] > 0).all()
    assert d2_tweedie_score(counts, expected, power=1) < 1

    rows = known("hours")
    names = {0.2: "hours.q0.2", 0.5: "hours.q0.5", 0.9: "hours.q0.9"}
    pinball = [
        mean_pinball_loss(rows["true.hours"], rows[name], alpha=level)
        for level, name in names.items()
    ]
    assert tested["test/hours/pinball"] == pytest.approx(np.mean(pinball), rel=1e-5)
    inside = rows["true.hours"].between(rows["hours.q0.2"], rows["hours.q0.9"])
    assert tested["test/hours/coverage_0.7"] == pytest.approx(inside.mean())

    rows = known("ic50")
    exact = ~rows["true.ic50"].str.contains("[<>]")
    assert set(rows["true.ic50"][~exact]) == {">8", "<2"}
    r2 = r2_score(rows["true.ic50"][exact].astype(float), rows["ic50"][exact])
    assert tested["test/ic50/r2"] == pytest.approx(r2, rel=1e-4, abs=1e-6)

    rows = known("death.t", "death.died")
    events = torch.tensor((rows["true.death.died"] == "yes").to_numpy())
    times = torch.tensor(rows["true.death.t"].to_numpy(dtype=float))
    found = compute_concordance(times, events, torch.tensor(rows["death"].to_numpy()))
    assert tested["test/death/concordance"] == pytest.approx(found.item(), rel=1e-6)
    curve = rows[[name for name in rows.columns if name.startswith("death.survival_")]]
    assert curve.shape[1] == 4
    assert (np.diff(curve.to_numpy(), axis=1) <= 0).all()


def test_what_is_said_of_the_tasks(trained: Trained) -> None:
    folder, run, out = trained
    for kind in ("Ordinal", "Counts", "Quantiles", "CensoredRegression", "Survival"):
        assert f": {kind} (set by hand" in out
    assert "score: mean over tasks of quadratic kappa (grade, stars), D2, at least -1 (visits)" in (
        " ".join(out.split())
    )
    reopened = Table(path=str(folder / "kinds.csv"), schema_path=str(run / "schema.json"))
    tasks = reopened.tasks
    assert tasks["grade"].classes == ("low", "mid", "high")  # type: ignore[attr-defined]
    assert len(tasks["death"].ends) == 4  # type: ignore[attr-defined]


def test_references_are_right_or_refused(trained: Trained) -> None:
    folder = trained.folder
    ended = call("reference", *words(folder), "--name", "reference", "--method", "constant")
    assert ended.code == 0, ended.err
    found = read_json(only_run(folder / "logs" / "reference") / "metrics.json")["test"]
    assert found["test/grade/quadratic_kappa"] == pytest.approx(0, abs=1e-6)
    assert found["test/death/concordance"] == pytest.approx(0.5)
    assert abs(found["test/visits/d2"]) < 0.2
    refused(
        call("reference", *words(folder), "--name", "linear", "--method", "linear"),
        ["linear", "task 'visits'", "Counts", "constant"],
    )
    ended = call(
        "reference",
        *(
            "--data",
            "Table",
            "--data.path",
            folder / "kinds.csv",
            "--data.targets",
            "[grade,stars]",
        ),
        *("--data.inputs", "[x1, x2, x3]", "--data.split_column", "part"),
        *("--data.tasks.grade", "Ordinal", "--data.tasks.grade.classes", "[low, mid, high]"),
        *("--data.tasks.stars", "Ordinal", "--data.tasks.stars.method", "cumulative"),
        *("--logs", folder / "logs", "--name", "ordered", "--method", "linear"),
        *("--accelerator", "cpu"),
    )
    assert ended.code == 0, ended.err
    found = read_json(only_run(folder / "logs" / "ordered") / "metrics.json")["test"]
    assert found["test/grade/quadratic_kappa"] > 0.6
    assert found["test/stars/quadratic_kappa"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--model.balancer", "UncertaintyWeights")])
def test_one_and_two_processes(trained: Trained, tmp_path: Path, more: tuple) -> None:
    folder = trained.folder
    logs = ("--logs", tmp_path, "--trainer.log_every_n_steps", 1, *more)
    ended = call("train", *words(folder), *logs, "--name", "one")
    assert ended.code == 0, ended.err
    one = only_run(tmp_path / "one")
    two = train(tmp_path, *words(folder)[:-2], *logs[2:], "--devices", 2, name="two")
    assert furthest(weights(two), weights(one)) < 1e-5
    ours, theirs = curves(two), curves(one)
    for tag in theirs:
        if tag.startswith("train/") and tag.endswith("/loss"):
            assert ours[tag] == pytest.approx(theirs[tag], rel=1e-5)
    for stage in ("validation", "test"):
        found, wanted = (read_json(run / "metrics.json")[stage] for run in (two, one))
        assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_killed_run_resumes_to_the_same_bits(
    trained: Trained, tmp_path: Path, devices: int
) -> None:
    folder = trained.folder
    flags = [*words(folder)[:-2], "--devices", devices, "--watch.checkpoint_every", 3]
    whole = train(tmp_path, *flags, name="whole")
    kill = KillAt.flags(14, tmp_path / "marker", rank=devices - 1)
    train_words = ("--logs", tmp_path, "--name", "killed", *flags, *kill)
    launch("src.train", *train_words, code=-9 if devices == 1 else 1)
    killed = only_run(tmp_path / "killed")
    launch("src.train", "--resume", killed)
    assert furthest(weights(killed), weights(whole)) == 0.0
    assert read_json(killed / "metrics.json") == read_json(whole / "metrics.json")


Change = Callable[[pd.DataFrame], object]
MISTAKES: list[tuple[str, Change, list[str]]] = [
    ("visits", lambda f: f.__setitem__("visits", [-3, *f["visits"][1:]]), ["row 1", "-3", "count"]),
    ("visits", lambda f: f.__setitem__("visits", [1.5, *f["visits"][1:]]), ["row 1", "1.5"]),
    ("days", lambda f: f.__setitem__("days", [0, *f["days"][1:]]), ["row 1", "offset 0 ('days')"]),
    (
        "grade",
        lambda f: f.__setitem__("grade", ["top", *f["grade"][1:]]),
        ["row 1", "'top'", "low"],
    ),
    ("ic50", lambda f: f.__setitem__("ic50", ["~5", *f["ic50"][1:]]), ["row 1", "'~5'"]),
    ("t", lambda f: f.__setitem__("t", [-1, *f["t"][1:]]), ["row 1", "time -1"]),
    (
        "died",
        lambda f: f.__setitem__("died", ["?!", *f["died"][1:]]),
        ["row 1", "'?!'", "yes or no"],
    ),
]


@pytest.mark.parametrize(("column", "change", "says"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_labels_that_are_none(tmp_path: Path, column: str, change: Change, says: list[str]) -> None:
    frame = write_table(tmp_path / "kinds.csv")
    change(frame)
    frame.to_csv(tmp_path / "kinds.csv", index=False)
    refused(call("train", *words(tmp_path)), says)


def test_settings_that_are_none(tmp_path: Path) -> None:
    write_table(tmp_path / "kinds.csv")
    flags = words(tmp_path)
    refused(
        call("train", *flags, "--data.tasks.visits.offset", "dayz"),
        ["data.tasks.visits.offset", "'dayz'", "'days'"],
    )
    refused(
        call("train", *flags, "--data.tasks.hours.levels", "[0.1, 0.9]"), ["'hours'", "lack 0.5"]
    )
    refused(
        call("train", *flags, "--data.inputs", "[x1, days]"), ["data.inputs", "'days'", "target"]
    )
