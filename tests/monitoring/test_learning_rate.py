"""The learning rate of a resumed run: said where it jumps, and chosen where that is asked for."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CyclicLR, ExponentialLR, LRScheduler, OneCycleLR

from src.models.optimisation import WarmupCosine
from src.monitoring.learning_rate import continue_from
from tests.cli.calling import call, refused
from tests.launching import curves, only_run

TOY = (
    *(
        "--data",
        "tests.toy.Toy",
        "--max_epochs",
        1,
        "--model.encoder.width",
        8,
        "--watch.figures_every",
        0,
        "--no_test",
    ),
    *("--trainer.log_every_n_steps", 1, "--model.lr_multipliers", "{deep: 0.5}"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 14 steps whose cosine has come down to 0."""
    logs = tmp_path_factory.mktemp("logs")
    assert call("train", *TOY, "--logs", logs, "--name", "x").code == 0
    return only_run(logs / "x")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_longer_schedule_says_where_it_jumps_to(run: Path) -> None:
    ended = call("train", "--resume", run, "--max_epochs", 2)
    assert ended.code == 0, ended.err
    after = 1e-3 * (1 + math.cos(math.pi * (14 - 1) / (28 - 1))) / 2
    assert (
        f"the learning rate goes back up from 0 to {after:.3g}: the schedule now ends at step 28"
        in ended.out
    )
    assert "--lr RATE" in ended.out


def test_nothing_is_said_where_nothing_jumps(run: Path) -> None:
    ended = call("train", "--resume", run)
    assert "the learning rate" not in ended.out


def test_a_rate_to_go_on_from(run: Path) -> None:
    """The rest of the cosine, from that rate down to 0; tasks keep their factors."""
    ended = call("train", "--resume", run, "--max_epochs", 2, "--lr", 2e-4)
    assert ended.code == 0, ended.err
    assert "the learning rate goes on from 0.0002" in ended.out
    assert "goes back up" not in ended.out
    rates, slow = curves(run)["lr/encoder"], curves(run)["lr/deep"]
    first = (1 + math.cos(math.pi * 13 / 27)) / 2
    for step in (
        15,
        20,
        27,
    ):  # points stand at the number of steps taken, and show the rate of the next one
        expected = 2e-4 * (1 + math.cos(math.pi * (step - 1) / 27)) / 2 / first
        assert rates[step] == pytest.approx(expected, rel=1e-4)
        assert slow[step] == pytest.approx(expected / 2, rel=1e-4)
    assert (
        yaml.safe_load((run / "config.yaml").read_text())["model"]["optimizer"]["init_args"]["lr"]
        == 2e-4
    )


def test_a_constant_rate_from_here(run: Path) -> None:
    ended = call(
        "train", "--resume", run, "--max_epochs", 2, "--lr", 1e-4, "--model.scheduler", "null"
    )
    assert ended.code == 0, ended.err
    rates = curves(run)["lr/encoder"]
    assert [rates[step] for step in (15, 28)] == pytest.approx([1e-4, 1e-4])


def test_without_a_schedule_a_rate_of_0_stays_0(run: Path) -> None:
    before = (run / "config.yaml").read_bytes()
    ended = call("train", "--resume", run, "--max_epochs", 2, "--model.scheduler", "null")
    refused(ended, ["the learning rate had come down to 0", "add --lr RATE"])
    assert (run / "config.yaml").read_bytes() == before


def test_nothing_else_of_the_model_changes(run: Path) -> None:
    for words in (
        ("--model.scheduler.floor", 0.1),
        ("--model.scheduler", "StepLR"),
        ("--model.optimizer", "SGD"),
    ):
        refused(
            call("train", "--resume", run, *words),
            [str(words[0]), "--lr RATE and --model.scheduler null alone"],
        )


def test_a_run_that_is_killed_before_its_next_checkpoint_changes_its_rate_again(run: Path) -> None:
    """The configuration says the rate by then, the checkpoint that it trained at another one."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["optimizer"]["init_args"]["lr"] = 2e-4
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    ended = call("train", "--resume", run, "--max_epochs", 2)
    assert "the learning rate goes on from 0.0002" in ended.out
    ended = call("train", "--resume", run, "--max_epochs", 3)  # and only once
    assert "the learning rate goes on" not in ended.out


def exponential(optimizer: Optimizer) -> LRScheduler:
    return ExponentialLR(optimizer, 0.9)


def one_cycle(optimizer: Optimizer) -> LRScheduler:
    return OneCycleLR(optimizer, [0.1, 0.05], total_steps=40)


def cyclic(optimizer: Optimizer) -> LRScheduler:
    return CyclicLR(optimizer, [0.1, 0.05], [0.3, 0.15], step_size_up=7, cycle_momentum=False)


def cosine(optimizer: Optimizer) -> LRScheduler:
    return WarmupCosine(optimizer, total_steps=40)


@pytest.mark.parametrize("make", [exponential, one_cycle, cyclic, cosine])
def test_the_curve_is_scaled_whatever_draws_it(make: object) -> None:
    def rates(scale: float) -> list[list[float]]:
        parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
        groups: list[dict[str, Any]] = [
            {"params": [parameters[0]], "name": "encoder"},
            {"params": [parameters[1]], "name": "slow", "lr": 0.05},
        ]
        optimizer = SGD(groups, lr=0.1, momentum=0.9)
        schedule = make(optimizer)  # type: ignore[operator]
        found = []
        for step in range(30):
            if step == 10 and scale != 1:
                rate = scale * optimizer.param_groups[0]["lr"]
                continue_from(rate, optimizer, schedule, {"encoder": 1.0, "slow": 0.5})
            found.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        return found

    plain, scaled = rates(1.0), rates(0.25)
    for step in range(30):
        factor = 1.0 if step < 10 else 0.25
        assert scaled[step] == pytest.approx([factor * rate for rate in plain[step]], rel=1e-6)
