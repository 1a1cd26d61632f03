"""Patience for each task: which tasks stop when, what stays of them, and what they are tested with.

The run of these tests is small, with a high rate, so that tasks stop one after the other.
"""

import csv
from math import isnan, nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from src.cli.runs import load_run
from src.data import Rows
from src.errors import UserError
from src.monitoring.selection import ALL, Selection
from src.tasks import is_labelled
from tests.cli.calling import Ended, call, refused
from tests.launching import launch, only_run, read_json
from tests.toy import RaiseAt, Toy

STEPS = 14  # of an epoch
FLAGS: tuple[object, ...] = (
    *("--data", "tests.toy.Toy", "--model.encoder.width", 16, "--lr", 0.03, "--max_epochs", 14),
    *("--watch.patience_by_task", 2, "--watch.figures_every", 0, "--watch.checkpoint_every", 5),
)
EPOCHS = ("--trainer.callbacks", "tests.monitoring.test_selection.Epochs")


class Trained(NamedTuple):
    """A run, how it ended, and the weights, scores and metrics of each of its validations."""

    run: Path
    ended: Ended
    epochs: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    logs = tmp_path_factory.mktemp("logs")
    logger = ("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", logs / "csv")
    ended = call("train", *FLAGS, *EPOCHS, *logger, "--logs", logs, "--name", "x")
    assert ended.code == 0, ended.err
    run = only_run(logs / "x")
    return Trained(run, ended, torch.load(run / "epochs.pt", weights_only=True))


def follow(epochs: dict[str, list[dict[str, Any]]], task: str, patience: int) -> tuple[int, int]:
    """The best validation of a task and the one that it stopped at, counted from 0."""
    seen = []
    for scores, metrics in zip(epochs["scores"], epochs["metrics"], strict=True):
        seen.append((scores[task], -metrics[f"val/{task}/loss"]))
    best = 0
    for k in range(len(seen)):
        if seen[k] > seen[best]:
            best = k
        if k - best == patience:
            return best, k
    return best, len(seen)


def load_best(run: Path) -> Any:
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)


def test_each_task_has_the_network_of_its_best_epoch(trained: Trained) -> None:
    run, ended, epochs = trained
    best = load_best(run)
    chosen = {task: follow(epochs, task, 2)[0] for task in Toy().tasks}
    assert len(set(chosen.values())) > 1  # or one epoch for all would pass, too
    assert best["task_steps"] == {task: (k + 1) * STEPS for task, k in chosen.items()}
    # no set of weights is kept that no task needs
    assert {*best["other_weights"], best["global_step"]} == {*best["task_steps"].values()}

    validation = read_json(run / "metrics.json")["validation"]
    for task, k in chosen.items():
        for key, value in epochs["metrics"][k].items():
            if key.startswith(f"val/{task}/"):
                kept = validation[key]
                assert kept is None if isnan(value) else kept == value, key
    scores = [epochs["scores"][k][task] for task, k in chosen.items()]
    assert validation["val/score"] == pytest.approx(sum(scores) / len(scores))

    # the table says which epoch, as do the lines from when a task stopped
    lines = ended.out.splitlines()
    for task, k in chosen.items():
        assert any(line.split()[:2] == [task, str(k + 1)] for line in lines), task
        assert f"task '{task}' has not been better in 2 validations" in ended.out
        assert f"(best epoch {k + 1})" in ended.out
    assert "no task better in 2 validations (patience_by_task)" in ended.out
    last = max(follow(epochs, task, 2)[1] for task in chosen)
    assert len(epochs["scores"]) == last + 1


def test_what_a_run_says_of_a_task_comes_from_its_own_network(
    trained: Trained, tmp_path: Path
) -> None:
    """Tests, predictions and the model that Python gets, against losses that are summed here."""
    run, _, epochs = trained
    results = read_json(run / "metrics.json")
    out = tmp_path / "out.json"
    assert call("evaluate", "--run", run, "--out", out).code == 0
    assert read_json(out) == results["test"]
    # loggers have one point of the test, and none of tasks with the networks of others
    (log,) = (run.parents[1] / "csv").rglob("metrics.csv")
    with log.open() as file:
        (logged,) = (row for row in csv.DictReader(file) if row["test/score"])
    for key, value in results["test"].items():
        assert float(logged[key]) == value or value is None, key
    table = tmp_path / "out.csv"
    assert call("predict", "--run", run, "--out", table, "--split", "test").code == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))

    test = Toy().split("test")
    assert isinstance(test, Rows)
    assert isinstance(test.inputs, torch.Tensor)
    for name, task in Toy().tasks.items():
        model, _ = load_run(run, task=name)
        with torch.no_grad():
            outputs = model(test.inputs)[name]
        target = test.targets[name]
        loss = task.losses(outputs, target).sum() / is_labelled(target).sum()
        assert results["test"][f"test/{name}/loss"] == pytest.approx(float(loss), rel=1e-5)
        model.load_state_dict(epochs["states"][follow(epochs, name, 2)[0]])
        with torch.no_grad():
            assert torch.equal(model(test.inputs)[name], outputs)
        if name == "number":
            decoded = model.decode(name, outputs)[""]
            assert [float(row[name]) for row in rows] == pytest.approx(list(decoded), rel=1e-5)


def test_the_head_of_a_stopped_task_stays_to_the_bit(trained: Trained) -> None:
    _, _, epochs = trained
    states = epochs["states"]
    frozen = 0
    for task in Toy().tasks:
        _, stopped = follow(epochs, task, 2)
        keys = [key for key in states[0] if key.startswith(f"heads.{task}.")]
        assert keys
        for key in keys:
            for k in range(stopped + 1, len(states)):
                assert torch.equal(states[k][key], states[stopped][key]), key
                frozen += 1
            assert not torch.equal(states[stopped][key], states[stopped - 1][key]), key
    assert frozen > 0


def test_a_run_goes_on_to_the_bit_after_tasks_have_stopped(
    trained: Trained, tmp_path: Path
) -> None:
    """It breaks off in the middle of the epoch after the first tasks have stopped."""
    run, _, epochs = trained
    stops = [follow(epochs, task, 2)[1] for task in Toy().tasks]
    step = (min(stops) + 1) * STEPS + 8
    assert step < (max(stops) + 1) * STEPS
    with pytest.raises(RuntimeError, match="this rank broke"):
        call(
            "train",
            *(*FLAGS, "--logs", tmp_path, "--name", "x"),
            *RaiseAt.flags(step, tmp_path / "marker"),
        )
    broken = only_run(tmp_path / "x")
    ended = call("train", "--resume", broken)
    assert ended.code == 0, ended.err
    assert read_json(broken / "metrics.json") == read_json(run / "metrics.json")
    ours, theirs = load_best(broken), load_best(run)
    assert ours["task_steps"] == theirs["task_steps"]
    sets = [(ours["state_dict"], theirs["state_dict"])]
    for number, state in ours["other_weights"].items():
        sets.append((state, theirs["other_weights"][number]))
    for mine, other in sets:
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[key], other[key]) for key in mine)

    # and what is over stays over
    again = call("train", "--resume", broken)
    assert "nothing was left to train (no task better in 2 validations" in again.out
    refused(
        call("train", "--resume", broken, "--watch.patience_by_task", "null"),
        ["watch.patience_by_task is 2 in the run"],
    )
    refused(
        call("train", "--resume", broken, "--watch.score", "number"),
        ["watch.score is null in the run"],
    )


def test_a_model_of_several_epochs_is_of_one_task(trained: Trained) -> None:
    with pytest.raises(UserError, match=r"name one, as in load_run\(..., task='class'\)"):
        load_run(trained.run)
    with pytest.raises(UserError, match="task 'clas' is none of the run's; did you mean 'class'"):
        load_run(trained.run, task="clas")
    # the last weights are one set
    load_run(trained.run, checkpoint="last")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--watch.patience_by_task", 0], ["watch.patience_by_task is 0", "at least 1"]),
        (
            ["--watch.patience_by_task", 2, "--trainer.limit_val_batches", 0],
            ["watch.patience_by_task waits", "limit_val_batches is 0"],
        ),
        (
            ["--watch.patience_by_task", 2, "--trainer.enable_checkpointing", "false"],
            ["watch.patience_by_task tests each task", "enable_checkpointing is false"],
        ),
        (
            [
                *("--watch.patience_by_task", 2, "--devices", 2, "--strategy", "fsdp"),
                *("--strategy.checkpoint", "folder"),
            ],
            ["watch.patience_by_task keeps", "use --strategy.checkpoint file"],
        ),
    ],
)
def test_where_no_task_can_have_its_own_epoch(
    tmp_path: Path, flags: list[object], says: list[str]
) -> None:
    words = ("--data", "tests.toy.Toy", "--logs", tmp_path / "logs")
    refused(call("train", *words, *flags), says)
    assert not (tmp_path / "logs").exists()


# -- the rule by itself ----------------------------------------------------------------------------
def watch_tasks(
    validations: list[dict[str, tuple[float, float]]], patience: int, overall: int | None = None
) -> tuple[Selection, list[list[str]], list[bool]]:
    """A selection that has seen {task: (score, loss)} of each epoch.

    Returns:
        The selection, the tasks that were stopped after each epoch, and whether the run was.
    """
    stopped: list[list[str]] = []
    model: Any = SimpleNamespace(
        names=tuple(validations[0]),
        weights=dict.fromkeys(validations[0], 1.0),
        score_weights=dict.fromkeys(validations[0], 1.0),
        own_weights=lambda: None,
        stop_tasks=lambda names: stopped.append([*names]),
    )
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        sanity_checking=False,
        should_stop=False,
        strategy=None,
    )
    selection = Selection(overall, patience)
    selection.on_fit_start(trainer, model)
    ends = []
    for epoch, validation in enumerate(validations):
        trainer.current_epoch = epoch
        trainer.global_step = epoch + 1
        model.scores = {name: score for name, (score, _) in validation.items()}
        known = [score for score in model.scores.values() if not isnan(score)]
        mean = sum(known) / len(known) if known else nan
        trainer.callback_metrics = {"val/score": torch.tensor(mean)}
        for name, (_, loss) in validation.items():
            trainer.callback_metrics[f"val/{name}/loss"] = torch.tensor(loss)
        selection.on_validation_end(trainer, model)
        ends.append(trainer.should_stop)
    return selection, stopped, ends


def test_a_task_that_has_stopped_is_compared_no_more() -> None:
    a = [0.5, 0.4, 0.3, 0.9, 0.9]  # stops after the third, better or not afterwards
    b = [0.1, 0.2, 0.3, 0.2, 0.1]
    validations = [{"a": (x, 1.0), "b": (y, 1.0)} for x, y in zip(a, b, strict=True)]
    selection, stopped, ends = watch_tasks(validations, patience=2)
    assert {name: best.epoch for name, best in selection.best.items()} == {"a": 1, "b": 3}
    assert stopped == [[], [], ["a"], ["a"], ["a", "b"]]
    assert ends == [False, False, False, False, True]


def test_a_task_without_a_score_waits_for_a_lower_loss() -> None:
    losses = [0.5, 0.4, 0.4, 0.3, 0.3, 0.3]
    validations = [{"a": (nan, loss), "b": (float(k), 1.0)} for k, loss in enumerate(losses)]
    selection, stopped, ends = watch_tasks(validations, patience=2)
    assert selection.best["a"].epoch == 4
    assert stopped[-2:] == [[], ["a"]]
    assert not any(ends)


def test_a_task_that_no_validation_judges_trains_on() -> None:
    validations = [{"a": (nan, nan), "b": (0.5, 1.0)} for _ in range(5)]
    selection, stopped, ends = watch_tasks(validations, patience=2)
    assert "a" not in selection.best
    assert stopped[-1] == ["b"]
    assert not any(ends)
    # unless the run as a whole has waited long enough
    assert watch_tasks(validations, 2, overall=3)[2] == [False, False, False, True, True]


def test_a_selection_of_tasks_goes_on_from_its_state() -> None:
    validations = [{"a": (0.5 - k, 1.0), "b": (float(k), 1.0)} for k in range(4)]
    selection, _, _ = watch_tasks(validations, patience=2)
    again = Selection(None, 2)
    again.load_state_dict(selection.state_dict())
    assert again.state_dict() == selection.state_dict()
    assert again.stopped == selection.stopped == ["a"]
    assert again.waits[ALL].waited == 0


# -- on several devices ----------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "placement", "pipeline"])
def test_tasks_stop_alike_on_several_devices(
    trained: Trained, tmp_path: Path, strategy: str
) -> None:
    words = ("--logs", tmp_path, "--name", "x", "--devices", 2, "--strategy", strategy)
    launch("src.train", *FLAGS, *words)
    run = only_run(tmp_path / "x")
    ours, theirs = read_json(run / "metrics.json"), read_json(trained.run / "metrics.json")
    assert load_best(run)["task_steps"] == load_best(trained.run)["task_steps"]
    for stage in ("validation", "test"):
        assert ours[stage] == pytest.approx(theirs[stage], rel=1e-4, abs=1e-6, nan_ok=True)
    out = tmp_path / "out.json"
    launch("src.evaluate", "--run", run, "--out", out, "--devices", 2, "--strategy", strategy)
    assert read_json(out) == pytest.approx(ours["test"], rel=1e-5, nan_ok=True)
