"""``--watch.score``: what it selects, and that val/score and test/score are it everywhere."""

from pathlib import Path

import pytest
import torch

from src.models.task_notes import describe_score
from src.tasks import Classification, Regression, Task
from tests.cli.calling import call, refused
from tests.launching import curves, only_run, read_json

FLAGS: tuple[object, ...] = (
    *("--data", "tests.toy.Toy", "--model.encoder.width", 16, "--lr", 0.03),
    *("--watch.figures_every", 0, "--trainer.callbacks", "tests.monitoring.test_selection.Epochs"),
)


def test_one_task_selects_and_is_the_score_everywhere(tmp_path: Path) -> None:
    words = ("--max_epochs", 5, "--watch.score", "binary", "--watch.patience", 3)
    ended = call("train", *FLAGS, *words, "--logs", tmp_path, "--name", "x")
    assert ended.code == 0, ended.err
    assert "score: AUROC of binary alone" in ended.out
    run = only_run(tmp_path / "x")
    epochs = torch.load(run / "epochs.pt", weights_only=True)
    scores = [scores["binary"] for scores in epochs["scores"]]
    losses = [metrics["val/binary/loss"] for metrics in epochs["metrics"]]

    # of equal scores the lower loss of that task
    best = max(range(len(scores)), key=lambda k: (scores[k], -losses[k]))
    means = [sum(s.values()) / len(s) for s in epochs["scores"]]
    assert best != means.index(max(means))  # or the mean would have passed, too
    results = read_json(run / "metrics.json")
    assert results["validation"]["val/score"] == scores[best]
    assert results["test"]["test/score"] == results["test"]["test/binary/auroc"]
    kept = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert kept["epoch"] == best
    assert [*curves(run)["val/score"].values()] == pytest.approx(scores)
    line = curves(run / "hparams")
    assert line["val_best/score"][kept["global_step"]] == pytest.approx(scores[best])

    # a command that opens the run has its score, whatever it is told
    out = tmp_path / "out.json"
    ended = call("evaluate", "--run", run, "--out", out, "--watch.score", "number")
    assert ended.code == 0, ended.err
    assert "--watch.score has no effect here" in ended.err
    assert read_json(out) == results["test"]
    ended = call("train", "--resume", run, "--max_epochs", 6)
    assert ended.code == 0, ended.err
    results = read_json(run / "metrics.json")
    assert results["test"]["test/score"] == results["test"]["test/binary/auroc"]
    refused(
        call("train", "--resume", run, "--watch.score", "null"),
        ["watch.score is binary in the run"],
    )


def test_tasks_that_share_nothing_have_their_own_epochs_and_a_weighted_mean(tmp_path: Path) -> None:
    words = ("--max_epochs", 4, "--watch.score", "{class: 3, number: 1}")
    more = ("--model.sharing", "Separate", "--logs", tmp_path, "--name", "x")
    ended = call("train", *FLAGS, *words, *more)
    assert ended.code == 0, ended.err
    assert "score: weighted mean over tasks of accuracy (class x 3), R2" in ended.out
    run = only_run(tmp_path / "x")
    epochs = torch.load(run / "epochs.pt", weights_only=True)
    best = {task: max(s[task] for s in epochs["scores"]) for task in epochs["scores"][0]}
    results = read_json(run / "metrics.json")
    expected = (3 * best["class"] + best["number"]) / 4
    assert results["validation"]["val/score"] == pytest.approx(expected)
    selected = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["callbacks"]
    assert {t: b["score"] for t, b in selected["selection"]["best"].items()} == best


@pytest.mark.parametrize(
    ("score", "says"),
    [
        ("clas", ["watch.score names 'clas'", "did you mean 'class'?"]),
        ("{class: 1, nothing: 2}", ["watch.score names 'nothing'", "there are class, class2"]),
        ("{class: -1}", ["watch.score gives 'class' the weight -1", "at least 0"]),
        ("{class: 0, number: 0}", ["watch.score gives no task a weight"]),
        ("{class: much}", ["watch.score"]),
    ],
)
def test_scores_that_cannot_be(tmp_path: Path, score: str, says: list[str]) -> None:
    words = ("--data", "tests.toy.Toy", "--logs", tmp_path / "logs", "--watch.score", score)
    refused(call("train", *words), says)
    assert not (tmp_path / "logs").exists()


def test_the_score_in_words() -> None:
    tasks: dict[str, Task] = {
        "a": Classification(classes=(0, 1, 2)),
        "b": Classification(classes=(0, 1, 2)),
        "c": Regression(mean=(0.0,), std=(1.0,)),
    }
    r2 = "R2, at least -1"
    assert describe_score(tasks) == f"score: mean over tasks of accuracy (a, b), {r2} (c)"
    weights = {"a": 1.0, "b": 1.0, "c": 0.0}
    assert describe_score(tasks, weights) == "score: mean over tasks of accuracy (a, b)"
    weights = {"a": 2.0, "b": 0.0, "c": 0.5}
    said = f"score: weighted mean over tasks of accuracy (a x 2), {r2} (c x 0.5)"
    assert describe_score(tasks, weights) == said
    weights = {"a": 0.0, "b": 0.0, "c": 2.0}
    assert describe_score(tasks, weights) == f"score: {r2} of c alone"
