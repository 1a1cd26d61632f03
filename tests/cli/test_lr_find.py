"""python -m src.lr_find: a table, a picture, and rates that train reads."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.cli.calling import Ended, call, refused, table, words_for_table
from tests.launching import finish, launch, start

SMALL = ("--steps", 30, "--seeds", 2, "--highest", 100)


def rows(text: str) -> dict[str, list[str]]:
    """The table's rows by part; cells are at least two blanks apart."""
    lines = [line.strip() for line in text.splitlines()]
    begin = next(k for k, line in enumerate(lines) if line.startswith("part "))
    cells = [re.split(r"\s{2,}", line) for line in lines[begin + 1 :]]
    return {words[0]: words[1:] for words in cells if len(words) > 3}


def find(folder: Path, *words: object) -> Ended:
    return call("lr_find", *words_for_table(folder), *SMALL, *words)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "table.csv").write_text(table(240))
    return tmp_path


def test_rates_are_printed_drawn_and_applied(folder: Path) -> None:
    out, rates = folder / "rates.png", folder / "rates.yaml"
    ended = find(folder, "--out", out, "--apply", rates)
    assert ended.code == 0, ended.err
    assert set(rows(ended.out)) == {"encoder", "income", "hours"}
    assert out.read_bytes().startswith(b"\x89PNG")
    assert not (folder / "logs").exists()  # no run

    found = yaml.safe_load(rates.read_text())["model"]
    lr = found["optimizer"]["init_args"]["lr"]
    suggested = {name: cells[0] for name, cells in rows(ended.out).items()}
    for name, text in suggested.items():
        wanted = 0.001 if text == "-" else float(text)
        rate = lr if name == "encoder" else lr * found["lr_multipliers"][name]
        assert rate == pytest.approx(wanted, rel=0.11)

    # train reads it, beside other settings
    trained = call("train", *words_for_table(folder), "--config", rates, "--print_config")
    assert trained.code == 0, trained.err
    config = yaml.safe_load(trained.out)["model"]
    assert config["optimizer"]["init_args"]["lr"] == lr
    assert config["lr_multipliers"] == found["lr_multipliers"]
    assert call("train", *words_for_table(folder), "--config", rates, "--fast_dev_run").code == 0


@pytest.mark.slow
def test_the_same_call_gives_the_same_table_whatever_the_epochs(folder: Path) -> None:
    first = find(folder, "--out", folder / "1.png")
    second = find(folder, "--out", folder / "2.png", "--max_epochs", 3)
    assert rows(first.out) == rows(second.out)
    other = find(folder, "--out", folder / "3.png", "--seed", 5)
    assert rows(first.out) != rows(other.out)


@pytest.mark.slow
def test_two_processes_find_the_same(folder: Path) -> None:
    words = (*words_for_table(folder), *SMALL)
    one = launch("src.lr_find", *words, "--out", folder / "1.png")
    two = launch("src.lr_find", *words, "--out", folder / "2.png", "--devices", 2)
    assert rows(one.stdout) == rows(two.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--model.sharing", "PLE", "--model.optimizer", "MuonAdamW"),
        ("--model.balancer", "UncertaintyWeights", "--model.stage_decay", 0.5),
        ("--model.balancer", "PCGrad", "--trainer.gradient_clip_val", 1.0),
        ("--model.scheduler", "TaskPlateau", "--precision", "bf16-mixed"),
        ("--model.optimizer", "ScheduleFreeAdamW", "--model.scheduler", "null"),
        ("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/score"),
    ],
    ids=lambda words: str(words[1]),
)
def test_it_goes_with(folder: Path, words: tuple[object, ...]) -> None:
    ended = find(folder, "--out", folder / "rates.png", *words)
    assert ended.code == 0, ended.err
    assert set(rows(ended.out)) == {"encoder", "income", "hours"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--seeds", 0), ["--seeds is 0; it must be at least 1"]),
        (("--steps", 3), ["--steps is 3; it must be at least 10"]),
        (("--lowest", 1, "--highest", 0.1), ["the lowest rate must be above 0"]),
        (("--apply", "rates.txt"), ["--apply rates.txt", "must end in .yaml"]),
        (("--out", "nowhere/x.png"), ["there is no folder nowhere"]),
        (("--fast_dev_run",), ["--fast_dev_run cannot go with lr_find"]),
        (("--model.optimizer", "Prodigy"), ["Prodigy has one rate for all"]),
        (("--resume", "run"), ["resume"]),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_said(folder: Path, words: tuple[object, ...], says: list[str]) -> None:
    refused(find(folder, *words), says)


def test_a_schedule_without_scores_is_refused(folder: Path) -> None:
    words = ("--model.scheduler", "TaskPlateau", "--trainer.limit_val_batches", 0)
    refused(
        call("train", *words_for_table(folder), *words),
        ["TaskPlateau waits for validation scores", "trainer.limit_val_batches is 0"],
    )


@pytest.mark.slow
def test_ctrl_c_leaves_no_file(folder: Path) -> None:
    rates = folder / "rates.yaml"
    words = (*words_for_table(folder), "--seeds", 500, "--apply", rates)
    process = start("src.lr_find", *words)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("score"):
        assert process.poll() is None
    time.sleep(15)
    os.kill(process.pid, signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130, done.stderr
    assert "stopped" in done.stdout
    assert not rates.exists()
    assert not (folder / "logs").exists()


def test_files_are_not_replaced(folder: Path) -> None:
    rates = folder / "rates.yaml"
    rates.write_text("mine")
    refused(find(folder, "--apply", rates), ["there is such a file", "--overwrite"])
    assert rates.read_text() == "mine"


def test_help() -> None:
    ended = call("lr_find", "--help")
    assert ended.code == 0
    for flag in ("--apply", "--seeds", "--lowest"):
        assert flag in ended.out
