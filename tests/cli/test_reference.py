"""References as runs of their own, and beside a network: what they leave, say and refuse."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from src.batch import InputShape
from src.data import MultiTaskDataModule, Rows, Split
from src.tasks import Classification, Task
from tests.cli.calling import call, refused
from tests.launching import launch, only_run, read_json

SMALL = ("--accelerator", "cpu", "--max_epochs", 1, "--model.encoder.width", 8)


def words(folder: Path) -> list[str]:
    """A table of 300 rows with numbers, words and three targets, one in five labels missing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)).round(4)
    city = rng.choice(["Rome", "Oslo", "Lima"], 300)
    effect = np.select([city == "Rome", city == "Oslo"], [1.0, -1.0], 0.0)
    hours = 40 + 3 * x[:, 0] + 2 * effect + rng.normal(size=300)
    frame = pd.DataFrame({"age": x[:, 0], "height": x[:, 1], "city": city})
    frame["hours"] = np.where(np.arange(300) % 5 == 2, np.nan, hours.round(3))
    frame["rich"] = np.where(x[:, 1] + effect + rng.normal(size=300) / 2 > 0.5, "yes", "no")
    frame["grade"] = np.array(["a", "b", "c"])[np.digitize(x[:, 0] + x[:, 1], [-0.7, 0.7])]
    frame.to_csv(folder / "people.csv", index=False)
    targets = "[hours, rich, grade]"
    return [
        *("--data", "Table", "--data.path", str(folder / "people.csv"), "--data.targets", targets),
        *("--logs", str(folder / "logs")),
    ]


def run_of(folder: Path, name: str) -> Path:
    return only_run(folder / "logs" / name)


def test_a_reference_leaves_a_run_without_weights(tmp_path):
    table = words(tmp_path)
    ended = call("reference", "--method", "linear", *table, "--name", "lin", "--seed", 3)
    assert ended.code == 0, ended.err
    assert ended.err == ""
    run = run_of(tmp_path, "lin")
    assert {path.name for path in run.iterdir()} - {"code.diff"} == {
        *("config.yaml", "metrics.json", "run.json", "schema.json"),
    }
    assert yaml.safe_load((run / "config.yaml").read_text())["method"] == "linear"
    record = read_json(run / "run.json")
    session = record["sessions"][0]
    assert (record["seed"], session["status"], session["reference"]) == (3, "finished", "linear")
    assert record["data"]["rows"] == {"train": 210, "val": 45, "test": 45}
    found = read_json(run / "metrics.json")
    assert found["validation"]["val/hours/r2"] > 0.8
    assert found["test"]["test/hours/r2"] > 0.8
    assert found["test"]["test/rich/auroc"] > 0.9
    score = np.mean(
        [found["test"][f"test/{key}"] for key in ("hours/r2", "rich/auroc", "grade/accuracy")]
    )
    assert found["test"]["test/score"] == pytest.approx(score, rel=1e-6)
    assert "linear: penalty hours" in ended.out
    assert f"test: score {score:.4f}" in ended.out

    # another command says what the folder is
    for verb, flags in (
        ("evaluate", ["--run", run]),
        ("predict", ["--run", run, "--out", tmp_path / "p.csv"]),
        ("train", ["--resume", run]),
    ):
        refused(call(verb, *flags), ["is the reference linear, which is no network"])


def test_a_config_file_repeats_a_reference_and_tuning_leaves_the_test_out(tmp_path):
    table = words(tmp_path)
    assert call("reference", "--method", "constant", *table, "--name", "one").code == 0
    first = run_of(tmp_path, "one")
    again = call(
        *("reference", "--config", first / "config.yaml", "--name", "two", "--no_test"),
        *("--devices", 2, "--model.encoder", "MLP", "--watch.score", "rich"),
    )
    assert again.code == 0, again.err
    assert again.err == (
        "note: --trainer.devices, --model.encoder has no effect here: a reference is no network\n"
    )
    found = read_json(run_of(tmp_path, "two") / "metrics.json")
    assert found.keys() == {"validation"}
    whole = read_json(first / "metrics.json")["validation"]
    assert found["validation"] == whole | {"val/score": 0.5}
    assert whole["val/rich/auroc"] == 0.5


def test_references_beside_a_network_are_those_of_their_own_runs(tmp_path):
    table = words(tmp_path)
    ended = call("train", *table, *SMALL, "--name", "net", "--reference", "[constant, linear]")
    assert ended.code == 0, ended.err
    run = run_of(tmp_path, "net")
    found = read_json(run / "metrics.json")
    assert found["references"].keys() == {"constant", "linear"}
    for method, results in found["references"].items():
        assert call("reference", "--method", method, *table, "--name", method).code == 0
        assert read_json(run_of(tmp_path, method) / "metrics.json") == results
        assert f"   ({method})" in ended.out
        assert ended.out.count(f"\n  {method} ") >= 3  # a row below each task

    # a later command takes the run as it is, and finds no network worse for its neighbours
    assert call("evaluate", "--run", run).code == 0

    # a run that is done takes more references in
    more = call("train", "--resume", run, "--reference", "[linear, boosting]")
    assert more.code == 0, more.err
    after = read_json(run / "metrics.json")
    assert after["references"].keys() == {"constant", "linear", "boosting"}
    assert {key: after[key] for key in ("validation", "test")} == {
        key: found[key] for key in ("validation", "test")
    }
    assert "boosting: trees hours" in more.out


def test_a_network_that_is_no_better_than_a_constant_is_named(tmp_path):
    table = words(tmp_path)
    ended = call("train", *table, *SMALL, "--name", "bad", "--lr", "1e-9")
    assert ended.code == 0, ended.err
    line = next(line for line in ended.out.splitlines() if line.startswith("no better than"))
    found = read_json(run_of(tmp_path, "bad") / "metrics.json")
    assert "references" not in found
    assert f"rich: val AUROC {found['validation']['val/rich/auroc']:.4g} (constant 0.5)" in line

    # one that learns is not
    good = call("train", *table, "--accelerator", "cpu", "--max_epochs", 40, "--name", "good")
    assert good.code == 0, good.err
    assert "no better than" not in good.out


def test_labels_alone_are_read_for_the_note(tmp_path):
    """Where rows are left out, there is no constant to compare with."""
    table = words(tmp_path)
    limited = ("--trainer.limit_val_batches", 1, "--lr", "1e-9", "--name", "limited")
    ended = call("train", *table, *SMALL, *limited)
    assert ended.code == 0, ended.err
    assert "no better than" not in ended.out


REFUSED = {
    "no method": (["reference"], ["method", "missing"]),
    "unknown method": (
        ["reference", "--method", "bosting"],
        ["--method bosting is unknown: did you mean 'boosting'?"],
    ),
    "unknown beside": (
        ["train", "--reference", "[linear, forest]"],
        ["--reference forest is unknown: there are constant, linear, boosting"],
    ),
    "rows left out": (
        ["reference", "--method", "linear", "--trainer.limit_test_batches", "3"],
        ["trainer.limit_test_batches 3 leaves some out"],
    ),
    "a debug run": (
        ["train", "--reference", "constant", "--fast_dev_run"],
        ["--reference measures references on all rows", "fast_dev_run"],
    ),
    "not a key": (["reference", "--method", "linear", "--data.pth", "x"], ["data.pth"]),
    "a resumed reference": (["reference", "--method", "linear", "--resume", "x"], ["resume"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_a_line_before_anything_is_made(case, tmp_path):
    (verb, *flags), says = REFUSED[case]
    refused(call(verb, *flags, *words(tmp_path), "--name", "x"), says)
    assert not (tmp_path / "logs").exists()


class Tagged(MultiTaskDataModule):
    """Sentences of four words with a tag for each word."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(batch_size=8, eval_batch_size=3, seed=seed)

    @property
    def tasks(self) -> dict[str, Task]:
        return {"tag": Classification(classes=("a", "b", "c"))}

    @property
    def input_shape(self) -> InputShape:
        return InputShape(tokens=9)

    def split(self, name: Split) -> Rows:
        tokens = torch.arange(40).view(10, 4) % 8 + 1
        tags = torch.where(tokens > 6, -100, (tokens > 4).long())
        return Rows({"tokens": tokens}, {"tag": tags})


def test_of_sequences_there_is_a_constant_alone(tmp_path):
    data = ["--data", "tests.cli.test_reference.Tagged", "--logs", tmp_path / "logs"]
    for method in ("linear", "boosting"):
        refused(
            call("reference", "--method", method, *data),
            [f"the reference {method} reads tables and images, no sequences", "constant"],
        )
    assert not (tmp_path / "logs").exists()
    assert call("reference", "--method", "constant", *data).code == 0
    found = read_json(run_of(tmp_path, "tagged") / "metrics.json")["test"]
    # of eight tokens two have no tag, four are a, and two b; the half of a label goes to c
    shares = np.array([20, 10, 0.5])
    losses = -np.log(shares / shares.sum())
    assert found["test/tag/accuracy"] == pytest.approx(2 / 3, rel=1e-6)
    assert found["test/tag/loss"] == pytest.approx((2 * losses[0] + losses[1]) / 3, rel=1e-5)


@pytest.mark.slow
def test_the_same_numbers_on_two_processes(tmp_path):
    table = words(tmp_path)
    found = []
    for devices in (1, 2):
        name = f"on{devices}"
        launch(
            *("src.train", *table, *SMALL, "--name", name, "--devices", devices),
            *("--reference", "[constant, linear, boosting]"),
        )
        found.append(json.loads((run_of(tmp_path, name) / "metrics.json").read_text()))
    assert found[0]["references"] == found[1]["references"]
    assert found[0]["references"]["boosting"]["test"]["test/hours/r2"] > 0.5
