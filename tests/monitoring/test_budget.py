"""How long a run trains where nobody says, and that whoever says it is heard."""

import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import yaml

from src.data import Sources
from src.monitoring import Budget, Figures, LastCheckpoint, Limits
from src.run import Run
from tests.cli.calling import Ended, call, refused, table
from tests.launching import ROOT, curves, read_json
from tests.toy import RaiseAt, Toy

# 14 steps an epoch
TOY = (
    "--data",
    "tests.toy.Toy",
    "--model.encoder.width",
    8,
    "--watch.figures_every",
    0,
    "--accelerator",
    "cpu",
)
SHORT = (
    "--budget.steps",
    50,
    "--budget.min_epochs",
    1,
    "--budget.validate_every",
    20,
)  # every second epoch of four


@pytest.mark.parametrize(
    ("steps_per_epoch", "every", "wanted"),
    {
        "one step": (1, None, (2000, 25)),
        "digits": (17, None, (118, 2)),
        "a validation at the end": (9, None, (225, 3)),
        "an epoch as long as the time between validations": (25, None, (80, 1)),
        "a large table": (600, None, (4, 1)),
        "epochs at least": (30_000, None, (2, 1)),
        "validation as it was asked for": (17, 50, (150, 50)),
        "more seldom than there are epochs": (17, 500, (118, 500)),
    }.values(),
)
def test_epochs_follow_from_steps(
    steps_per_epoch: int, every: int | None, wanted: tuple[int, int]
) -> None:
    assert (
        Budget(steps=2000, min_epochs=2, validate_every=25).epochs(steps_per_epoch, every) == wanted
    )


def test_defaults_are_those_of_the_config() -> None:
    stated = yaml.safe_load((ROOT / "configs" / "train.yaml").read_text())["budget"]
    assert stated == asdict(Budget())
    assert Budget().epochs(1) == (1005, 15)


def test_a_budget_that_is_shorter_than_its_interval() -> None:
    assert Budget(steps=10, min_epochs=1, validate_every=100).epochs(3) == (4, 4)


@pytest.mark.parametrize("name", ["steps", "min_epochs", "validate_every", "patience"])
def test_budgets_start_at_1(name: str) -> None:
    with pytest.raises(ValueError, match=f"budget.{name} is 0; it must be at least 1"):
        Budget(**{name: 0})


def trained(tmp_path: Path, *words: object) -> tuple[Ended, dict[str, Any], Run]:
    ended = call("train", *TOY, "--logs", tmp_path / "logs", *words)
    assert ended.code == 0, ended.err
    run = Run(max((tmp_path / "logs").glob("*/*")))
    return ended, read_json(run.record)["sessions"][-1], run


def line(ended: Ended) -> str:
    """What a run says of its budget."""
    return "".join(re.findall(r"^trains .*", ended.out, flags=re.M))


def test_a_run_within_its_budget(tmp_path: Path) -> None:
    """Validates as seldom as it says and after the last step, where the schedule has come to its
    end.
    """
    ended, session, run = trained(tmp_path, *SHORT)
    says = (
        "trains 56 steps: 4 epochs, validates every 2 epochs, "
        "stops after 30 validations without a better score"
    )
    assert line(ended) == says
    assert (session["epochs"], session["steps"]) == (4, 56)
    assert list(curves(run.path)["val/score"]) == [28, 56]
    state = torch.load(run.last, weights_only=True)
    assert state["lr_schedulers"][0]["_last_lr"] == pytest.approx(
        [0.0] * len(state["lr_schedulers"][0]["_last_lr"]), abs=1e-9
    )
    assert "max_epochs: null" in run.config.read_text()


LIMITS: dict[str, tuple[dict[str, Any], str]] = {
    "accumulation": (
        {"accumulate_grad_batches": 4},
        "trains 60 steps: 15 epochs, validates every 5 epochs",
    ),
    "few batches": (
        {"limit_train_batches": 7},
        "trains 63 steps: 9 epochs, validates every 3 epochs",
    ),
    "more batches than there are": (
        {"limit_train_batches": 99},
        "trains 56 steps: 4 epochs, validates every 2 epochs",
    ),
    "a share of the batches": (
        {"limit_train_batches": 0.5},
        "trains 63 steps: 9 epochs, validates every 3 epochs",
    ),
    "overfitting": (
        {"overfit_batches": 1},
        "trains 60 steps: 60 epochs, validates every 20 epochs",
    ),
    "within epochs": ({"val_check_interval": 0.5}, "trains 56 steps: 4 epochs"),
    "across epochs": (
        {"val_check_interval": 20, "check_val_every_n_epoch": None},
        "trains 56 steps: 4 epochs",
    ),
    "no validation": ({"limit_val_batches": 0}, "trains 56 steps: 4 epochs"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_steps_are_counted_as_the_trainer_takes_them(name: str) -> None:
    settings, says = LIMITS[name]
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=-1, **settings
    )
    trainer.datamodule = Toy()  # type: ignore[attr-defined]
    limits = Limits(Budget(steps=50, min_epochs=1, validate_every=20), None, None)
    limits.setup(trainer, L.LightningModule(), "validate")
    assert trainer.max_epochs == -1
    limits.setup(trainer, L.LightningModule(), "fit")
    assert limits.describe(trainer) == says
    assert f"{trainer.max_epochs} epochs" in says


def test_several_sources_are_counted_as_they_take_turns() -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=-1)
    sources = Sources({"a": Toy(), "b": Toy(batch_size=32)}, prefix=True)
    trainer.datamodule = sources  # type: ignore[attr-defined]
    limits = Limits(Budget(steps=50, min_epochs=1, validate_every=25), None, 3)
    limits.setup(trainer, L.LightningModule(), "fit")
    assert limits.steps_per_epoch == 14 + 7
    assert (
        limits.describe(trainer) == "trains 84 steps: 4 epochs, validates every 2 epochs, "
        "stops after 3 validations without a better score"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--trainer.accumulate_grad_batches", 4),
            "trains 60 steps: 15 epochs, validates every 5 epochs",
        ),
        (("--trainer.check_val_every_n_epoch", 1), "validates every epoch, stops"),
        (("--watch.patience", 7), "stops after 7 validations without a better score"),
    ],
)
def test_settings_of_ones_own_are_kept(
    tmp_path: Path, words: tuple[object, ...], says: str
) -> None:
    ended, session, _ = trained(tmp_path, *SHORT, *words)
    assert says in line(ended)
    assert f"trains {session['steps']} steps: {session['epochs']} epochs" in line(ended)


def test_without_validation_there_is_no_patience(tmp_path: Path) -> None:
    ended, session, _ = trained(tmp_path, *SHORT, "--trainer.limit_val_batches", 0)
    assert line(ended) == "trains 56 steps: 4 epochs"
    assert session["steps"] == 56


@pytest.mark.parametrize(
    ("words", "steps", "validations"),
    [(("--max_epochs", 3), 42, [14, 28, 42]), (("--trainer.max_steps", 20), 20, [14])],
    ids=["epochs", "steps"],
)
def test_a_limit_of_ones_own_goes_before(
    tmp_path: Path, words: tuple[object, ...], steps: int, validations: list[int]
) -> None:
    """Then each epoch validates, and nothing stops early."""
    ended, session, run = trained(tmp_path, "--budget.patience", 1, "--lr", 0, *words)
    assert line(ended) == ""
    assert session["steps"] == steps
    assert list(curves(run.path)["val/score"]) == validations


def test_a_limit_of_time_cuts_the_budget_short(tmp_path: Path) -> None:
    """A schedule needs an end, which a time is not."""
    ended, session, _ = trained(
        tmp_path, "--budget.steps", 1_000_000, "--trainer.max_time", "00:00:00:01"
    )
    assert line(ended).startswith("trains 1,000,020 steps: 71,430 epochs")
    assert 0 < session["steps"] < 100_000


def test_patience_of_the_budget_stops_a_run(tmp_path: Path) -> None:
    _, session, _ = trained(tmp_path, "--budget.steps", 500, "--budget.patience", 2, "--lr", 0)
    assert session["steps"] == 3 * 28  # each two epochs


def test_debug_runs_have_no_budget(tmp_path: Path) -> None:
    ended = call("train", *TOY, "--fast_dev_run", "--logs", tmp_path)
    assert (ended.code, line(ended)) == (0, "")


def test_a_run_that_broke_goes_on_within_its_budget(tmp_path: Path) -> None:
    """To the weights of the run that did not."""
    _, _, whole = trained(tmp_path / "whole", *SHORT)
    with pytest.raises(RuntimeError, match="this rank broke"):
        trained(tmp_path, *SHORT, *RaiseAt.flags(40, tmp_path / "marker"))
    broken = Run(next((tmp_path / "logs").glob("*/*")))
    resumed = call("train", "--resume", broken.path)
    assert resumed.code == 0, resumed.err
    assert line(resumed).startswith("trains 56 steps: 4 epochs")
    ours, theirs = (
        torch.load(run.last, weights_only=True)["state_dict"] for run in (broken, whole)
    )
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name


def test_a_finished_run_can_be_lengthened(tmp_path: Path) -> None:
    """By epochs, or by a larger budget."""
    _, _, run = trained(tmp_path, *SHORT)
    assert line(call("train", "--resume", run.path, "--max_epochs", 5)) == ""
    assert read_json(run.record)["sessions"][-1]["steps"] == 70
    longer = call("train", "--resume", run.path, "--max_epochs", "null", "--budget.steps", 80)
    assert line(longer).startswith("trains 84 steps: 6 epochs")
    assert read_json(run.record)["sessions"][-1]["steps"] == 84


def test_a_small_table_trains_as_long_as_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch of one step is not saved by itself, but the last one is."""
    saved: list[int] = []
    real = LastCheckpoint._save

    def save(self: LastCheckpoint, trainer: L.Trainer) -> None:
        saved.append(trainer.global_step)
        real(self, trainer)

    monkeypatch.setattr(LastCheckpoint, "_save", save)
    (tmp_path / "small.csv").write_text(table(40))
    words = ("--data", "Table", "--data.path", tmp_path / "small.csv", "--data.targets", "[income]")
    ended, session, run = trained(
        tmp_path, *words, "--budget.steps", 60, "--budget.validate_every", 30
    )
    assert line(ended).startswith("trains 60 steps: 60 epochs, validates every 30 epochs")
    assert session["steps"] == 60
    assert saved == [25, 50, 60]
    assert torch.load(run.last, weights_only=True)["global_step"] == 60


def test_pictures_are_drawn_by_validations() -> None:
    """Every second validation, which come every third epoch, and the last one."""

    def drawn(max_epochs: int, **more: Any) -> list[int]:
        trainer = SimpleNamespace(
            sanity_checking=False, fast_dev_run=False, max_epochs=max_epochs, **more
        )
        due = []
        for trainer.current_epoch in range(15):
            if Figures(every=2)._is_due(trainer):  # type: ignore[arg-type]
                due.append(trainer.current_epoch + 1)
        return due

    assert [epoch for epoch in drawn(15, check_val_every_n_epoch=3) if epoch % 3 == 0] == [
        6,
        12,
        15,
    ]
    assert drawn(-1, check_val_every_n_epoch=1) == [2, 4, 6, 8, 10, 12, 14]
    assert drawn(5, check_val_every_n_epoch=None)[:3] == [2, 4, 5]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--budget.steps", 0), ["budget.steps is 0", "at least 1"]),
        (("--budget.step", 5), ["'budget.step'", "'budget.steps'"]),
        (("--budget", 5), ["--budget 5"]),
    ],
)
def test_mistakes(tmp_path: Path, words: tuple[object, ...], says: list[str]) -> None:
    refused(call("train", *TOY, "--logs", tmp_path, *words), says)
