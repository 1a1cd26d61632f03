"""Thresholds and added metrics from the command line to the table of metrics and predictions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from src.checkpoint import load_checkpoint
from tests.cli.calling import call
from tests.launching import launch, only_run


def written(folder: Path) -> tuple[Path, pd.DataFrame]:
    """A table of 240 rows with few positives, whose split is a column."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 3)).round(4)
    noise = rng.normal(size=(240, 3)) / 2
    frame = pd.DataFrame(x, columns=["x1", "x2", "x3"])
    frame["fraud"] = np.where(x[:, 0] + noise[:, 0] > 1.3, "yes", "no")
    frame["u"] = (x[:, 1] + noise[:, 1] > 1).astype(int)
    frame["v"] = (x[:, 2] + noise[:, 2] > 0).astype(int)
    frame["part"] = [["train", "train", "val", "test"][k % 4] for k in range(240)]
    path = folder / "cases.csv"
    frame.to_csv(path, index=False)
    return path, frame


def trained(folder: Path, *words: str) -> tuple[Path, pd.DataFrame, str]:
    path, frame = written(folder)
    targets = "{fraud: fraud, tags: [u, v]}"
    data = (
        "--data",
        "Table",
        "--data.path",
        path,
        "--data.targets",
        targets,
        "--data.split_column",
        "part",
    )
    small = (
        "--model.encoder.width",
        8,
        "--max_epochs",
        4,
        "--lr",
        0.01,
        "--logs",
        folder / "logs",
        "--name",
        "x",
    )
    ended = call("train", *data, *small, *words)
    assert ended.code == 0, ended.err
    return only_run(folder / "logs" / "x"), frame, ended.out


def predict_cases(run: Path, folder: Path) -> pd.DataFrame:
    """Returns the predictions of a run for all rows of the table in a folder."""
    out = folder / "p.csv"
    ended = call("predict", "--run", run, "--data.path", folder / "cases.csv", "--out", out)
    assert ended.code == 0
    return pd.read_csv(out)


def test_predictions_have_the_metrics_of_the_table(tmp_path: Path) -> None:
    run, frame, out = trained(tmp_path, "--data.tasks.tags.per_label", "true")
    described = load_checkpoint(run / "checkpoints" / "best.ckpt")["tasks"]
    threshold, (u, v) = described["fraud"]["threshold"], described["tags"]["thresholds"]
    assert 0 < threshold < 0.45  # one row in eight is positive
    assert f"threshold of fraud: {threshold:.4g}, chosen on validation rows" in out
    assert f"thresholds of tags: u {u:.4g}, v {v:.4g}, chosen on validation rows" in out
    assert "score: mean over tasks of AUROC (fraud, tags)" in out

    predicted = predict_cases(run, tmp_path)
    assert len(predicted) == 240
    assert ((predicted["fraud.p_yes"] > threshold) == (predicted["fraud"] == "yes")).all()
    metrics = json.loads((run / "metrics.json").read_text())
    for part, stage in (("val", "validation"), ("test", "test")):
        rows = (frame["part"] == part).to_numpy()
        true, guess = frame["fraud"][rows] == "yes", predicted["fraud"][rows] == "yes"
        values = metrics[stage]
        assert values[f"{part}/fraud/f1"] == pytest.approx(f1_score(true, guess), abs=1e-6)
        assert values[f"{part}/fraud/accuracy"] == pytest.approx(
            accuracy_score(true, guess), abs=1e-6
        )
        single = [f1_score(frame[label][rows], predicted[f"tags.{label}"][rows]) for label in "uv"]
        assert values[f"{part}/tags/f1"] == pytest.approx(np.mean(single), abs=1e-6)
        assert [values[f"{part}/tags/f1/{label}"] for label in "uv"] == pytest.approx(
            single, abs=1e-6
        )


def test_thresholds_by_hand(tmp_path: Path) -> None:
    flags = ("--data.tasks.fraud.threshold", "0.3", "--data.tasks.tags.thresholds", "[0.2, 0.6]")
    run, _, out = trained(tmp_path, *flags)
    assert "chosen on validation rows" not in out
    predicted = predict_cases(run, tmp_path)
    assert ((predicted["fraud.p_yes"] > 0.3) == (predicted["fraud"] == "yes")).all()
    assert ((predicted["tags.p_u"] > 0.2) == (predicted["tags.u"] == 1)).all()
    assert ((predicted["tags.p_v"] > 0.6) == (predicted["tags.v"] == 1)).all()


def test_added_metrics_on_one_and_on_two_processes(tmp_path: Path) -> None:
    rows = 143
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, 3))
    noise = rng.normal(size=(rows, 2))
    frame = pd.DataFrame(x, columns=["x1", "x2", "x3"]).round(4)
    frame["income"] = ["high" if value > 0 else "low" for value in (x[:, 0] + noise[:, 0])]
    frame["hours"] = (40 + 5 * x[:, 1] + noise[:, 1]).round(2)
    frame.loc[::7, "income"] = None
    frame["part"] = [["train", "val", "test", "test"][k % 4] for k in range(rows)]
    frame.to_csv(tmp_path / "cases.csv", index=False)

    income = "[CohenKappa, {class_path: FBetaScore, init_args: {beta: 2.0, name: F2}}]"
    ended = call(
        "train",
        *("--data", "Table", "--data.path", tmp_path / "cases.csv"),
        *("--data.targets", "[income, hours]", "--data.split_column", "part"),
        *("--data.tasks.income.metrics", income, "--data.tasks.income.monitor", "CohenKappa"),
        *("--data.tasks.hours.metrics", "[torchmetrics.SpearmanCorrCoef]"),
        *("--model.encoder.width", 8, "--max_epochs", 4, "--lr", 0.01),
        *("--logs", tmp_path, "--name", "x"),
    )
    assert ended.code == 0, ended.err
    assert "CohenKappa     F2" in ended.out
    assert "score: mean over tasks of CohenKappa (income), R2" in ended.out
    run = only_run(tmp_path / "x")
    one = json.loads((run / "metrics.json").read_text())["test"]

    out = tmp_path / "two.json"
    launch("src.evaluate", "--run", run, "--devices", 2, "--accelerator", "cpu", "--out", out)
    two = json.loads(out.read_text())
    assert two == pytest.approx(one, rel=1e-5)
    assert {"test/income/F2", "test/hours/SpearmanCorrCoef"} < two.keys()

    ended = call("predict", "--run", run, "--split", "test", "--out", tmp_path / "p.csv")
    assert ended.code == 0, ended.err
    known = pd.read_csv(tmp_path / "p.csv").dropna(subset="true.income")
    kappa = cohen_kappa_score(known["true.income"], known["income"])
    assert one["test/income/CohenKappa"] == pytest.approx(kappa, abs=1e-6)
