"""Runs that go wrong stop, and say where."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from src.data import Rows, Split
from src.monitoring.guards import Evidence, diagnose
from tests.cli.calling import call, refused
from tests.launching import finish, only_run, read_json, start
from tests.toy import Toy

TOY = (
    "--data",
    "tests.toy.Toy",
    "--max_epochs",
    2,
    "--model.encoder.width",
    16,
    "--watch.figures_every",
    0,
)


class Nudge(L.Callback):
    """Moves a weight of one rank, as a bug in a balancer that looks at local data would."""

    def __init__(self, step: int = 7) -> None:
        self.step = step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object
    ) -> None:
        if trainer.global_step == self.step and trainer.global_rank == 1:
            with torch.no_grad():
                pl_module.get_parameter("heads.number.0.weight")[0, 0] += 1e-4


def test_a_loss_that_is_not_finite_is_named_with_its_rows(tmp_path: Path) -> None:
    ended = call("train", *TOY, "--data.nan_row", 7, "--logs", tmp_path, "--name", "x")
    refused(
        ended,
        [
            "class",
            "number",
            "not finite at step",
            "training rows (counted from 0) whose loss is not: 7",
        ],
    )
    run = only_run(tmp_path / "x")
    session = read_json(run / "run.json")["sessions"][-1]
    assert session["status"] == "failed"
    assert "not finite" in session["error"]


def test_weights_that_diverge_are_named_as_such(tmp_path: Path) -> None:
    ended = call(
        "train", *TOY, "--lr", 1e30, "--model.scheduler", "null", "--logs", tmp_path, "--name", "x"
    )
    refused(ended, ["not finite at step", "the weights are at fault"])


def test_a_guard_may_look_rarely(tmp_path: Path) -> None:
    words = (
        *TOY,
        "--data.nan_row",
        7,
        "--logs",
        tmp_path,
        "--name",
        "x",
        "--watch.finite_every",
        1000,
    )
    assert "not finite" not in call("train", *words).err


@pytest.mark.slow
def test_ranks_that_drift_apart_are_found(tmp_path: Path) -> None:
    words = (
        "--devices",
        2,
        "--trainer.callbacks",
        "tests.monitoring.test_guards.Nudge",
        "--watch.ranks_every",
        5,
    )
    done = finish(start("src.train", *TOY, "--logs", tmp_path, "--name", "x", *words))
    assert done.returncode == 2
    assert (
        "after step 10 the ranks hold different weights, first in heads.number.0.weight"
        in done.stderr
    )


class Far(Toy):
    """Inputs, or labels of a task, beyond what single precision adds up.

    Args:
        inputs: What inputs are multiplied by.
        labels: What the labels of 'number' are multiplied by.
        settings: Those of the base.
    """

    def __init__(self, inputs: float = 1.0, labels: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.factors = inputs, labels

    def split(self, name: Split) -> Rows:
        rows = super().split(name)
        assert isinstance(rows.inputs, Tensor)
        rows.inputs = rows.inputs * self.factors[0]
        rows.targets["number"] *= self.factors[1]
        return rows


@pytest.mark.parametrize(("what", "factor"), [("inputs", 1e30), ("labels", 1e30)])
def test_data_that_are_too_large_are_named_and_not_the_weights(
    tmp_path: Path, what: str, factor: float
) -> None:
    words = (
        "--data",
        "tests.monitoring.test_guards.Far",
        f"--data.{what}",
        factor,
        *TOY[2:],
        "--logs",
        tmp_path,
    )
    ended = call("train", *words)
    refused(
        ended,
        [
            "not finite at step",
            f"{what} are as large as",
            "e+30, in training row",
            "bring them to a few units",
        ],
    )
    assert "weights are at fault" not in ended.err


def seen(**changed: object) -> Evidence:
    usual: dict[str, object] = {"rank": 0, "weight": None, "wrong": [], "rows": 8}
    usual |= {"inputs": (1.0, 3), "labels": (1.0, 3)}
    return Evidence(**(usual | changed))  # type: ignore[arg-type]


def test_a_verdict_names_what_is_broken_first() -> None:
    one_rank = diagnose([seen(), seen(rank=1, weight="heads.a.weight", wrong=list(range(8)))])
    assert one_rank.startswith("the weights of rank 1 alone are not, first heads.a.weight")
    everywhere = diagnose(
        [seen(weight="w", wrong=[1, 2, 3, 4]), seen(rank=1, weight="w", wrong=[5, 6, 7, 8])]
    )
    assert everywhere.startswith("first w: the weights are at fault")
    assert diagnose([seen(wrong=[7]), seen(rank=1)]).endswith("whose loss is not: 7")
    assert diagnose([seen(wrong=[1, 2, 3, 4, 5])]).startswith(
        "in 5 of 8 rows of the batch: the weights are at fault"
    )
    assert diagnose([seen(wrong=[1, 2, 3, 4, 5], inputs=(1e30, 4))]).startswith(
        "inputs are as large as 1e+30, in training row 4"
    )
    assert diagnose([seen(wrong=[1, 2, 3, 4, 5], labels=(1e16, 2))]).startswith(
        "labels are as large as 1e+16, in training row 2"
    )
