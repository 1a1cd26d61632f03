"""Runs that go wrong stop, and say where."""

from pathlib import Path

import lightning as L
import torch

from tests.cli.calling import call, refused
from tests.launch import finish, only_run, read_json, start

TOY = ("--data", "tests.toy.Toy", "--max_epochs", 2, "--model.encoder.width", 16, "--watch.figures_every", 0)


class Nudge(L.Callback):
    """Moves a weight of one rank, as a bug in a balancer that looks at local data would."""

    def __init__(self, step: int = 7) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        if trainer.global_step == self.step and trainer.global_rank == 1:
            with torch.no_grad():
                pl_module.get_parameter("heads.number.0.weight")[0, 0] += 1e-4


def test_a_loss_that_is_not_finite_is_named_with_its_rows(tmp_path: Path) -> None:
    ended = call("train", *TOY, "--data.nan_row", 7, "--logs", tmp_path, "--name", "x")
    refused(ended, ["class", "number", "not finite at step", "training rows (counted from 0) whose loss is not: 7"])
    run = only_run(tmp_path / "x")
    session = read_json(run / "run.json")["sessions"][-1]
    assert session["status"] == "failed"
    assert "not finite" in session["error"]


def test_weights_that_diverge_are_named_as_such(tmp_path: Path) -> None:
    ended = call("train", *TOY, "--lr", 1e30, "--model.scheduler", "null", "--logs", tmp_path, "--name", "x")
    refused(ended, ["not finite at step", "the weights are at fault"])


def test_a_guard_may_look_rarely(tmp_path: Path) -> None:
    words = (*TOY, "--data.nan_row", 7, "--logs", tmp_path, "--name", "x", "--watch.finite_every", 1000)
    assert "not finite" not in call("train", *words).err


def test_ranks_that_drift_apart_are_found(tmp_path: Path) -> None:
    words = ("--devices", 2, "--trainer.callbacks", "tests.monitoring.test_guards.Nudge", "--watch.ranks_every", 5)
    done = finish(start("src.train", *TOY, "--logs", tmp_path, "--name", "x", *words))
    assert done.returncode == 2
    assert "after step 10 the ranks hold different weights, first in heads.number.0.weight" in done.stderr
