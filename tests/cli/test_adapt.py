"""Adapting runs in this process: whole runs of the command on small data, and wrong input."""

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge

from src.checkpoint import load_checkpoint
from src.cli.adapt_learner import Learner
from src.cli.runs import load_run
from src.data import MultiTaskDataModule, Rows, Split
from src.files.yaml12 import load
from src.run import Run
from tests.cli.calling import call, refused, table, words_for_table

QUICK = ("--shots", "4,8", "--draws", "3", "--steps", "5")


def read(data: MultiTaskDataModule, name: Split) -> Rows:
    rows = data.split(name)
    assert isinstance(rows, Rows)
    return rows


def find_last(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tasks on made-up rows."""
    folder = tmp_path_factory.mktemp("synthetic")
    words = (
        "--data Synthetic --data.tasks 2 --data.rows 300 --model.encoder.width 16 --max_epochs 3"
    )
    ended = call("train", *words.split(), "--logs", folder, "--name", "two")
    assert ended.code == 0, ended.err
    return find_last(folder / "two")


@pytest.fixture(scope="module")
def tabular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a small table that predicts income and hours."""
    folder = tmp_path_factory.mktemp("tabular")
    (folder / "table.csv").write_text(table(120))
    words = words_for_table(folder)
    words[words.index("[stage]")] = "[stage, grade]"
    ended = call("train", *words, "--name", "people")
    assert ended.code == 0, ended.err
    return find_last(folder / "logs" / "people")


@pytest.fixture(scope="module")
def adapted(synthetic: Path) -> tuple[Path, str]:
    """What adapt leaves of a third task on the same rows, and what it prints."""
    logs = synthetic.parent.parent
    ended = call("adapt", "--run", synthetic, "--data.tasks", "3", *QUICK, "--logs", logs)
    assert ended.code == 0, ended.err
    return find_last(logs / "two-adapt"), ended.out


def test_report_has_every_number(adapted: tuple[Path, str]) -> None:
    folder, out = adapted
    record = json.loads((folder / "adapt.json").read_text())
    assert record["task"] == "task3"
    assert len(record["fits"]) == 5 * 2 * 3
    assert {len(ids) for ids in record["examples"].values()} == {8}
    values = pd.read_csv(folder / "few_shot.csv")
    scores = values[(values["metric"] == "score") & (values["stage"] == "test")]
    assert len(scores) == 30
    mean = scores[(scores["method"] == "probe") & (scores["shots"] == 8)]["value"].mean()
    line = next(
        line for line in record["summary"] if line["method"] == "probe" and line["shots"] == 8
    )
    assert line["mean"] == pytest.approx(mean)
    assert f"{mean:.3f}" in out
    for kind in ("png", "pdf", "svg"):
        assert (folder / f"few_shot.{kind}").stat().st_size > 1000
    assert list(folder.glob("events.*"))
    assert "8 examples: " in out
    assert "draws overlap" in out


def test_tensorboard_has_a_curve_over_k(adapted: tuple[Path, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = adapted
    events = EventAccumulator(str(folder)).Reload()
    points = events.Scalars("few_shot/probe/mean")
    assert [point.step for point in points] == [4, 8]
    record = json.loads((folder / "adapt.json").read_text())
    means = [line["mean"] for line in record["summary"] if line["method"] == "probe"]
    assert [point.value for point in points] == pytest.approx(means)


def test_the_folder_is_a_run_that_keeps_the_old_tasks_to_the_bit(
    synthetic: Path, adapted: tuple[Path, str]
) -> None:
    folder, _ = adapted
    metrics = json.loads((folder / "metrics.json").read_text())
    evaluated = call("evaluate", "--run", folder, "--out", folder / "again.json")
    assert evaluated.code == 0, evaluated.err
    again = json.loads((folder / "again.json").read_text())
    assert again == pytest.approx(metrics["test"])

    old, _ = load_run(synthetic)
    new, data = load_run(folder)
    x = read(data, "test").inputs
    with torch.inference_mode():
        before = old(x)
        after = new(x)
    for name in ("task1", "task2"):
        assert torch.equal(before[name], after[name])
    assert set(after) == {"task1", "task2", "task3"}

    predicted = call("predict", "--run", folder, "--out", folder / "predicted.csv")
    assert predicted.code == 0, predicted.err
    frame = pd.read_csv(folder / "predicted.csv")
    assert frame["task3"].to_numpy() == pytest.approx(after["task3"][:, 0].numpy(), abs=1e-5)


def test_the_network_is_that_of_the_fit(adapted: tuple[Path, str]) -> None:
    folder, _ = adapted
    record = json.loads((folder / "adapt.json").read_text())
    chosen = record["chosen"]
    fit = next(
        fit
        for fit in record["fits"]
        if (fit["method"], fit["shots"], fit["draw"]) == (chosen["method"], 8, 0)
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"]["test/task3/r2"] == pytest.approx(fit["test"]["r2"], abs=1e-6)
    assert metrics["validation"]["val/task3/loss"] == pytest.approx(fit["val"]["loss"], rel=1e-5)

    # of the methods that keep the run's tasks, the best on validation rows
    means: dict[str, float] = {}
    for method in ("probe", "head", "anil"):
        own = [f for f in record["fits"] if f["method"] == method and f["shots"] == 8]
        means[method] = sum(f["val"]["score"] for f in own) / 3
    assert chosen["method"] == max(means, key=lambda method: means[method])


def test_the_probe_is_ridge_regression_on_the_runs_features(
    synthetic: Path, adapted: tuple[Path, str]
) -> None:
    folder, _ = adapted
    record = json.loads((folder / "adapt.json").read_text())
    fit = next(f for f in record["fits"] if (f["method"], f["shots"]) == ("probe", 8))
    model, data = load_run(folder)
    train, test = read(data, "train"), read(data, "test")
    ids = torch.tensor(record["examples"]["0"][:8])
    with torch.inference_mode():
        Z = model.sharing(train[ids].inputs)["task3"].double()
        Z_test = model.sharing(test.inputs)["task3"].double()
    spread = (Z - Z.mean(0)).pow(2).mean()
    ridge = Ridge(alpha=float(8 * fit["chosen"]["penalty"] / 2 * spread), solver="svd")
    ridge.fit(Z.numpy(), train.targets["task3"][ids].double().numpy())
    assert ridge.score(Z_test.numpy(), test.targets["task3"].numpy()) == pytest.approx(
        fit["test"]["r2"], abs=1e-4
    )


def test_the_same_command_goes_on_where_it_was_stopped(synthetic: Path, tmp_path: Path) -> None:
    words = (
        *("--run", synthetic, "--data.tasks", "3", "--logs", tmp_path, "--methods", "probe,anil"),
        *("--shots", "4", "--draws", "3", "--no_test"),
    )
    fit = Learner.fit
    made: list[tuple[str, int]] = []

    def stop_at_fourth(self: Learner, method: str, ids: torch.Tensor, draw: int) -> Any:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append((method, draw))
        return fit(self, method, ids, draw)

    with mock.patch.object(Learner, "fit", stop_at_fourth):
        ended = call("adapt", *words)
    assert ended.code == 130
    assert "stopped after 3 of 6 fits, which are kept" in ended.err
    assert "python -m src.adapt --run" in ended.err
    assert not (tmp_path / "two-adapt").exists()

    made.clear()

    def count(self: Learner, method: str, ids: torch.Tensor, draw: int) -> Any:
        made.append((method, draw))
        return fit(self, method, ids, draw)

    with mock.patch.object(Learner, "fit", count):
        ended = call("adapt", *words)
    assert ended.code == 0, ended.err
    assert made == [("anil", 1), ("probe", 2), ("anil", 2)]
    assert "3 fits in " in ended.out
    assert "3 were there already" in ended.out
    record = json.loads((find_last(tmp_path / "two-adapt") / "adapt.json").read_text())
    assert record["rows"] == "val"
    metrics = json.loads((find_last(tmp_path / "two-adapt") / "metrics.json").read_text())
    assert "test" not in metrics

    # other settings are other fits
    with mock.patch.object(Learner, "fit", count):
        ended = call("adapt", *words, "--seed", "1")
    assert len(made) == 9


def test_all_methods_learn_from_the_same_rows(synthetic: Path, tmp_path: Path) -> None:
    seen: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    learn = Learner.learn

    def watch(self: Learner, method: str, ids: torch.Tensor, draw: int) -> Any:
        seen.setdefault((draw, len(ids)), set()).add(tuple(ids.tolist()))
        return learn(self, method, ids, draw)

    words = ("--data.tasks", "3", "--shots", "3,6", "--draws", "2", "--steps", "1", "--no_test")
    with mock.patch.object(Learner, "learn", watch):
        ended = call("adapt", "--run", synthetic, *words, "--logs", tmp_path)
    assert ended.code == 0, ended.err
    assert {key: len(rows) for key, rows in seen.items()} == {
        (0, 3): 1,
        (0, 6): 1,
        (1, 3): 1,
        (1, 6): 1,
    }
    assert seen[0, 3] == {next(iter(seen[0, 6]))[:3]}


@pytest.mark.slow
def test_numbers_are_the_same_twice(synthetic: Path, tmp_path: Path) -> None:
    found = []
    for place in ("a", "b"):
        words = ("--data.tasks", "3", "--shots", "5", "--draws", "2", "--steps", "3")
        ended = call("adapt", "--run", synthetic, *words, "--logs", tmp_path / place)
        assert ended.code == 0, ended.err
        found.append((find_last(tmp_path / place / "two-adapt") / "few_shot.csv").read_text())
    assert found[0] == found[1]


# -- a table ---------------------------------------------------------------------------------------
@pytest.mark.slow
def test_another_target_of_the_runs_own_table(tabular: Path) -> None:
    logs = tabular.parent.parent
    words = ("--data.targets", "[grade]", *QUICK, "--logs", logs, "--name", "grade")
    ended = call("adapt", "--run", tabular, *words)
    assert ended.code == 0, ended.err
    folder = find_last(logs / "grade")
    config = load((folder / "config.yaml").read_text())
    assert config["data"]["init_args"]["inputs"] == ["age", "city"]
    assert config["init_from"]["source"] == str(tabular)
    # the rows are on the sides where the run has them
    sides = [json.loads((path / "schema.json").read_text())["sides"] for path in (tabular, folder)]
    assert sides[0] == sides[1]
    record = json.loads((folder / "run.json").read_text())
    assert record["sessions"][-1]["status"] == "finished"
    assert record["sessions"][-1]["adapted"]["shots"] == 8
    assert call("evaluate", "--run", folder).code == 0
    checkpoint = load_checkpoint(Run(folder).best)
    assert list(checkpoint["tasks"]) == ["grade"]


def test_rows_of_another_file_are_read_as_the_run_read_its_own(
    tabular: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new.csv"
    values = ["high" if i % 3 else "low" for i in range(90)]
    # columns in another order, and more of them
    text = table(90, without=("income", "hours"), stress=values)
    frame = pd.read_csv(io.StringIO(text))
    frame[frame.columns[::-1]].to_csv(new, index=False)
    words = ("--data", "Table", "--data.path", new, "--data.targets", "[stress]")
    ended = call("adapt", "--run", tabular, *words, *QUICK, "--logs", tmp_path, "--name", "s")
    assert ended.code == 0, ended.err
    folder = find_last(tmp_path / "s")
    here = json.loads((folder / "schema.json").read_text())["inputs"]
    there = json.loads((tabular / "schema.json").read_text())["inputs"]
    assert here == there
    assert call("predict", "--run", folder, "--out", tmp_path / "p.csv").code == 0


@pytest.mark.slow
def test_a_network_with_all_weights_trained_is_kept_alone(tabular: Path, tmp_path: Path) -> None:
    words = ("--data.targets", "[grade]", "--shots", "8", "--draws", "1", "--steps", "3")
    ended = call(
        *("adapt", "--run", tabular, *words, "--logs", tmp_path, "--name", "g"),
        *("--method", "finetune", "--methods", "finetune,scratch"),
    )
    assert ended.code == 0, ended.err
    assert "one draw gives no interval" in ended.out
    folder = find_last(tmp_path / "g")
    model, _ = load_run(folder)
    old, _ = load_run(tabular)
    state = old.state_dict()
    moved = [
        name
        for name, tensor in model.state_dict().items()
        if name.startswith("sharing.") and not torch.equal(tensor, state[name])
    ]
    assert moved
    assert call("evaluate", "--run", folder).code == 0


# -- wrong input -----------------------------------------------------------------------------------
def test_a_task_that_the_run_has_is_refused(tabular: Path, synthetic: Path) -> None:
    says = ["has all tasks of the data already (income, hours)", "--data.targets", "--init_from"]
    refused(call("adapt", "--run", tabular), says)
    refused(call("adapt", "--run", tabular, "--data.targets", "[income]"), ["(income)"])
    words = ("--data.tasks", "3", "--task", "task1")
    refused(call("adapt", "--run", synthetic, *words), ["has that task already"])


def test_several_new_tasks_take_a_name(synthetic: Path, tmp_path: Path) -> None:
    words = ("--run", synthetic, "--data.tasks", "4", "--logs", tmp_path)
    refused(call("adapt", *words), ["task3, task4", "--task task3"])
    refused(call("adapt", *words, "--task", "task9"), ["no such task"])
    ended = call("adapt", *words, "--task", "task3", *QUICK, "--methods", "probe")
    assert ended.code == 0, ended.err
    assert "no run folder holds a network: nobody has trained further tasks, task4" in ended.out


def test_more_examples_than_rows_are_refused(tabular: Path) -> None:
    words = ("--data.targets", "[grade]", "--shots", "5,500")
    refused(call("adapt", "--run", tabular, *words), ["--shots 500", "'grade' (a ", "b ", "c "])


def test_a_target_among_the_inputs_is_refused(tabular: Path) -> None:
    refused(
        call("adapt", "--run", tabular, "--data.targets", "[city]"),
        ["'city'", "reads as an input", "predicted from itself"],
    )


def test_other_inputs_are_refused(tabular: Path, synthetic: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    new.write_text(table(60, without=("age",)))
    words = ("--data", "Table", "--data.path", new, "--data.targets", "[grade]")
    refused(call("adapt", "--run", tabular, *words), ["'age'", "no column"])
    others = ("--data.tasks", "3", "--data.features", "9")
    refused(call("adapt", "--run", synthetic, *others), ["does not fit this run", "shape"])


def test_other_mistakes_are_refused(synthetic: Path, tmp_path: Path) -> None:
    words = ("--run", synthetic, "--data.tasks", "3")
    refused(call("adapt", "--run", tmp_path / "none"), ["does not exist"])
    refused(call("adapt", *words, "--method", "finetune"), ["task1, task2", "probe, head, anil"])
    refused(call("adapt", *words, "--devices", "2"), ["--devices 2", "one process"])
    refused(call("adapt", *words, "--init_from", "x"), ["--init_from", "--run"])
    refused(call("adapt", *words, "--model.encoder.width", "8"), ["does not fit", "width"])


@pytest.mark.slow
def test_architectures_with_parts_of_a_task_learn_with_all_weights_alone(tmp_path: Path) -> None:
    words = "--data Synthetic --data.tasks 2 --data.rows 120 --model.encoder.width 8 --max_epochs 1"
    for sharing in ("MMoE", "Separate"):
        ended = call(
            *("train", *words.split(), "--model.sharing", sharing),
            *("--logs", tmp_path, "--name", sharing, "--no_test"),
        )
        assert ended.code == 0, ended.err
    adapt = ("--data.tasks", "3", *QUICK, "--logs", tmp_path)
    ended = call("adapt", "--run", find_last(tmp_path / "MMoE"), *adapt)
    assert ended.code == 0, ended.err
    assert "probe is left out: " in ended.out
    assert "no run folder holds a network" in ended.out
    refused(
        call("adapt", "--run", find_last(tmp_path / "Separate"), *adapt),
        ["nothing that task3 could start from"],
    )


def test_words_that_the_run_did_not_know_leave_its_features_as_they_are(
    tabular: Path, tmp_path: Path
) -> None:
    cities = [["Rome", "Paris", "Lima"][i % 3] for i in range(90)]
    stress = ["high" if i % 4 else "low" for i in range(90)]
    (tmp_path / "new.csv").write_text(
        table(90, without=("income", "hours"), city=cities, stress=stress)
    )
    ended = call(
        *("adapt", "--run", tabular, "--data", "Table", "--data.path", tmp_path / "new.csv"),
        *("--data.targets", "[stress]", "--methods", "anil", "--shots", "4", "--draws", "1"),
        *("--logs", tmp_path, "--name", "s"),
    )
    assert ended.code == 0, ended.err
    assert "new words in: city" in ended.out
    assert call("evaluate", "--run", find_last(tmp_path / "s")).code == 0


@pytest.fixture(autouse=True)
def no_interrupt() -> Iterator[None]:
    """Leaves the handler of Ctrl-C as it was."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)
    os.environ.pop("PL_GLOBAL_SEED", None)
