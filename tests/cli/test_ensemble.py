"""Several runs averaged: by evaluate, by predict, and as a run folder of its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, r2_score, roc_auc_score

from src.cli.runs import load_run
from src.tasks.decisions import find_best_threshold
from tests.cli.calling import call, refused, table, words_for_table
from tests.launching import launch, only_run, read_json
from tests.toy import Toy

TOY = (
    *("--data", "tests.toy.Toy", "--accelerator", "cpu", "--max_epochs", 2),
    *("--model.encoder.width", 8, "--model.encoder.depth", 1),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[str]:
    """Three runs on the toy data, of different seeds, architectures and balancers."""
    logs = tmp_path_factory.mktemp("ensemble")
    found = []
    variants = [
        (),
        ("--model.sharing", "MMoE", "--model.balancer", "UncertaintyWeights"),
        ("--model.encoder.width", 4, "--watch.patience_by_task", 1, "--max_epochs", 5),
    ]
    for seed, more in enumerate(variants):
        words = [*TOY, *more, "--seed", seed, "--logs", logs, "--name", f"r{seed}"]
        ended = call("train", *words)
        assert ended.code == 0, ended
        found.append(str(only_run(logs / f"r{seed}")))
    return found


def evaluate(run: str, folder: Path, *more: object) -> dict[str, float]:
    out = folder / "metrics.json"
    ended = call("evaluate", "--run", run, "--out", out, "--overwrite", *more)
    assert ended.code == 0, ended
    return read_json(out)


def predict(run: str, folder: Path, *more: object) -> pd.DataFrame:
    out = folder / "predictions.csv"
    ended = call("predict", "--run", run, "--out", out, "--overwrite", *more)
    assert ended.code == 0, ended
    return pd.read_csv(out)


def probability(frame: pd.DataFrame, task: str) -> np.ndarray:
    return frame[f"{task}.p_yes"].to_numpy()


# -- the numbers -----------------------------------------------------------------------------------
def test_metrics_are_those_of_the_mean_prediction(runs, tmp_path):
    """Against scikit-learn, on predictions that each run has written by itself."""
    frames = {
        split: [predict(run, tmp_path, "--split", split) for run in runs]
        for split in ("val", "test")
    }
    metrics = evaluate(",".join(runs), tmp_path)
    targets = {split: Toy().split(split).targets for split in ("val", "test")}

    # several numbers
    number = np.mean([frame["number"] for frame in frames["test"]], axis=0)
    truth = targets["test"]["number"].numpy() * 2 + 3
    known = ~np.isnan(truth)
    assert metrics["test/number/r2"] == pytest.approx(r2_score(truth[known], number[known]), 1e-5)
    mae = np.abs(truth - number)[known].mean()
    assert metrics["test/number/mae"] == pytest.approx(mae, 1e-5)

    # classes, by the mean of probabilities
    columns = [f"class.p_{label}" for label in (0, 1, 2)]
    mean = np.mean([frame[columns].to_numpy() for frame in frames["test"]], axis=0)
    labels = targets["test"]["class"].numpy()
    known = labels != -100
    right = accuracy_score(labels[known], mean.argmax(1)[known])
    assert metrics["test/class/accuracy"] == pytest.approx(right, 1e-6)

    # yes or no, by a threshold that validation rows choose for the mean
    chosen, tested = (
        np.mean([probability(frame, "binary") for frame in frames[split]], axis=0)
        for split in ("val", "test")
    )
    on_val = targets["val"]["binary"]
    known_val = ~on_val.isnan()
    threshold = find_best_threshold(torch.tensor(chosen)[known_val], on_val[known_val] == 1)
    truth = targets["test"]["binary"].numpy()
    known = ~np.isnan(truth)
    auroc = roc_auc_score(truth[known], tested[known])
    assert metrics["test/binary/auroc"] == pytest.approx(auroc, 1e-6)
    f1 = f1_score(truth[known], tested[known] > threshold)
    assert metrics["test/binary/f1"] == pytest.approx(f1, 1e-6)


def test_predictions_are_means_with_their_spread_beside(runs, tmp_path):
    frames = [predict(run, tmp_path, "--split", "val") for run in runs]
    both = predict(",".join(runs), tmp_path, "--split", "val")
    assert both["id"].tolist() == frames[0]["id"].tolist()
    for column in ("number", "vector.u", "binary.p_yes", "labels.p_x", "class.p_2"):
        each = np.stack([frame[column] for frame in frames])
        np.testing.assert_allclose(both[column], each.mean(0), rtol=1e-5, atol=1e-6)
    spreads = {
        "number.spread": "number",
        "vector.spread_u": "vector.u",
        "binary.spread": "binary.p_yes",
        "labels.spread_x": "labels.p_x",
    }
    for spread, column in spreads.items():
        each = np.stack([frame[column] for frame in frames])
        np.testing.assert_allclose(both[spread], each.std(0), rtol=1e-4, atol=1e-6)

    # of classes: that of the class that is predicted
    each = np.stack([frame[[f"class.p_{k}" for k in (0, 1, 2)]] for frame in frames])
    wanted = each.std(0)[np.arange(len(both)), both["class"]]
    np.testing.assert_allclose(both["class.spread"], wanted, rtol=1e-4, atol=1e-6)
    assert "true.number" in both


def test_runs_that_are_one_are_that_run_to_the_bit(runs, tmp_path):
    alone = evaluate(runs[0], tmp_path)
    assert evaluate(f"{runs[0]},{runs[0]},{runs[0]}", tmp_path) == alone
    # of the last run each task has weights of its own, and the score has more digits
    alone = evaluate(runs[2], tmp_path)
    twice = evaluate(f"{runs[2]},{runs[2]}", tmp_path)
    assert twice.pop("test/score") == pytest.approx(alone.pop("test/score"), rel=1e-6)
    assert twice == alone
    alone = predict(runs[0], tmp_path)
    twice = predict(f"{runs[0]},{runs[0]}", tmp_path)
    pd.testing.assert_frame_equal(twice[alone.columns], alone, check_exact=True)
    assert (twice.filter(like=".spread") == 0).all(axis=None)


# -- the folder ------------------------------------------------------------------------------------
def test_an_ensemble_leaves_a_run_folder(runs, tmp_path):
    ended = call("ensemble", "--run", ",".join(runs), "--logs", tmp_path, "--name", "five")
    assert ended.code == 0, ended
    assert "mean of the predictions of 3 runs" in ended.out
    assert "threshold of binary" in ended.out
    assert "mean of the runs: score" in ended.out
    folder = only_run(tmp_path / "five")
    results = read_json(folder / "metrics.json")
    own = read_json(Path(runs[0]) / "metrics.json")
    assert results["validation"].keys() == own["validation"].keys()
    assert results["test"].keys() == own["test"].keys()
    record = read_json(folder / "run.json")
    assert record["sessions"][-1]["status"] == "finished"
    assert record["seed"] == 0
    assert (folder / "config.yaml").read_text() == (Path(runs[0]) / "config.yaml").read_text()

    # later commands open its runs, and decide by the same thresholds
    assert evaluate(str(folder), tmp_path) == results["test"]
    assert evaluate(",".join(runs), tmp_path, "--split", "val") == results["validation"]
    members = read_json(folder / "ensemble.json")["members"]
    assert [(folder / member).resolve() for member in members] == [Path(run) for run in runs]
    (folder / "ensemble.json").write_text(json.dumps({"members": "all"}))
    refused(call("evaluate", "--run", folder), ["ensemble.json", "members"])


def test_an_ensemble_of_one_run_has_its_results_and_may_leave_the_test_out(runs, tmp_path):
    words = ("--run", runs[0], "--logs", tmp_path, "--no_test")
    assert call("ensemble", *words).code == 0
    results = read_json(only_run(tmp_path / "ensemble") / "metrics.json")
    assert results == {"validation": read_json(Path(runs[0]) / "metrics.json")["validation"]}


@pytest.mark.slow
def test_two_processes_give_the_same_numbers(runs, tmp_path):
    alone = evaluate(",".join(runs), tmp_path)
    words = ("--run", ",".join(runs), "--logs", tmp_path, "--devices", 2)
    for name, more in {"ddp": (), "fsdp": ("--strategy", "fsdp")}.items():
        launch("src.ensemble", *words, "--name", name, *more)
        together = read_json(only_run(tmp_path / name) / "metrics.json")["test"]
        assert together.keys() == alone.keys()
        for key, value in alone.items():
            assert together[key] == pytest.approx(value, rel=1e-5, nan_ok=True), key


# -- tables ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> tuple[Path, list[str]]:
    """Two runs on one table, and one on another fold of it."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "table.csv").write_text(table(120))
    found = []
    for number, fold in enumerate((0, 0, 1)):
        words = [*words_for_table(folder), "--data.folds", 3, "--data.fold", fold]
        ended = call("train", *words, "--seed", number, "--name", f"t{number}")
        assert ended.code == 0, ended
        found.append(str(only_run(folder / "logs" / f"t{number}")))
    return folder, found


def test_runs_of_a_fold_are_averaged_on_its_rows(tables, tmp_path):
    _, (one, two, _) = tables
    alone = predict(one, tmp_path, "--split", "test")
    both = predict(f"{one},{two}", tmp_path, "--split", "test")
    assert len(both) == 40
    assert both["id"].tolist() == alone["id"].tolist()
    call("ensemble", "--run", f"{one},{two}", "--logs", tmp_path)
    made = only_run(tmp_path / "ensemble")
    assert read_json(made / "run.json")["data"]["fold"] == {"folds": 3, "fold": 0}
    assert (made / "schema.json").read_bytes() == (Path(one) / "schema.json").read_bytes()


def test_new_rows_are_decided_by_thresholds_of_validation_rows(tables, tmp_path):
    folder, (one, two, _) = tables
    (tmp_path / "new.csv").write_text(table(24, without=["income", "hours"]))
    words = ("--data.path", tmp_path / "new.csv")
    new = predict(f"{one},{two}", tmp_path, *words)
    column = next(name for name in new.columns if name.startswith("income.p_"))
    yes = column.removeprefix("income.p_")

    # the rows of the run itself are decided by the same threshold
    own = predict(f"{one},{two}", tmp_path)
    decided = own["income"] == yes
    low, high = own[column][~decided].max(), own[column][decided].min()
    assert (new["income"][new[column] > max(high, low)] == yes).all()
    assert (new["income"][new[column] < min(low, high)] != yes).all()

    # without them it is the mean of the runs' thresholds, which is said
    shutil.move(folder / "table.csv", folder / "moved.csv")
    try:
        ended = call(
            "predict", "--run", f"{one},{two}", "--out", tmp_path / "gone.csv", *map(str, words)
        )
    finally:
        shutil.move(folder / "moved.csv", folder / "table.csv")
    assert ended.code == 0, ended
    assert "thresholds are the means of the runs'" in ended.err
    gone = pd.read_csv(tmp_path / "gone.csv")
    thresholds = [load_run(run)[0] for run in (one, two)]
    mean = np.mean([model.chosen_tasks["income"].threshold for model in thresholds])
    assert ((gone[column] > mean) == (gone["income"] == yes)).all()


# -- runs that cannot be averaged ------------------------------------------------------------------
def test_runs_of_other_data_or_tasks_are_refused(runs, tables, tmp_path):
    folder, (one, _, other) = tables
    both = ["cannot be averaged with", one]
    refused(call("evaluate", "--run", f"{one},{other}"), [*both, "data.fold 1, not 0"])
    refused(call("evaluate", "--run", f"{one},{runs[0]}"), [*both, "its data are Toy, not Table"])

    words = [*words_for_table(folder), "--data.folds", 3, "--name", "less"]
    less = [*words, "--data.targets", "[income]", "--data.drop", "[hours,stage]"]
    assert call("train", *less).code == 0
    fewer = only_run(folder / "logs" / "less")
    refused(call("evaluate", "--run", f"{one},{fewer}"), [*both, "data.targets"])

    words[-1] = "kinds"
    assert call("train", *words, "--data.tasks.hours.loss", "mae").code == 0
    kinds = only_run(folder / "logs" / "kinds")
    refused(
        call("evaluate", "--run", f"{one},{kinds}"),
        [*both, "its task 'hours' has loss mae, not mse"],
    )

    # another file under the same name
    shutil.copytree(folder, tmp_path / "there")
    (tmp_path / "there" / "table.csv").write_text(table(121))
    words = [*words_for_table(tmp_path / "there"), "--data.folds", 3, "--name", "longer"]
    assert call("train", *words).code == 0
    longer = only_run(tmp_path / "there" / "logs" / "longer")
    refused(call("evaluate", "--run", f"{one},{longer}"), [*both, "other data", "files.train"])


def test_mistakes_are_one_line(tables, tmp_path):
    _, (one, two, _) = tables
    for words, says in {
        ("--run", f"{one},nowhere"): ["run folder nowhere does not exist"],
        ("--run", f"{one},"): ["a name is missing beside a comma"],
        ("--run", f"{one},{two}", "--split", "all"): ["--split is 'all'"],
        ("--run", f"{one},{two}", "--out", f"{two}/run.json", "--overwrite"): [
            "belongs to the run"
        ],
        (
            "--run",
            f"{one},{two}",
            "--data.eval_batch_size",
            "8",
            "--trainer.limit_predict_batches",
            "2",
        ): ["an ensemble is measured on all rows"],
    }.items():
        refused(call("evaluate", *words), says)
    (tmp_path / "new.csv").write_text(table(24))
    refused(
        call("ensemble", "--run", f"{one},{two}", "--data.path", tmp_path / "new.csv"),
        ["new.csv holds new rows", "src.evaluate"],
    )
    refused(call("ensemble", "--run", one, "--name", "../x"), ["--name ../x"])
