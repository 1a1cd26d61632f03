"""The command as a process: stopped by Ctrl-C, continued, and its run folder opened by others."""

import signal
import time
from pathlib import Path

import pytest

from tests.launching import finish, launch, only_run, read_json, start, train

SMALL = ("--data", "Synthetic", "--data.rows", 300, "--model.encoder.width", 16)


@pytest.mark.slow
def test_stopped_continued_evaluated_and_predicted(tmp_path: Path) -> None:
    run = train(tmp_path, *SMALL, "--data.tasks", 2, "--max_epochs", 2, "--no_test")
    words = ("--run", run, "--data.tasks", 3, "--shots", "5,10", "--draws", 40, "--steps", 5)
    place = ("--logs", tmp_path, "--name", "third")
    process = start("src.adapt", *words, *place)
    fits = tmp_path / "fits"
    for _ in range(2000):
        if len(list(fits.glob("*/*.json"))) >= 5:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130, done.stderr
    assert "fits, which are kept; continue with: python -m src.adapt" in done.stderr
    assert "Traceback" not in done.stderr
    kept = {path.name: path.stat().st_mtime_ns for path in fits.glob("*/*.json")}
    assert len(kept) >= 5

    words = ("--run", run, "--data.tasks", 3, "--shots", "5,10", "--draws", 2, "--steps", 5)
    again = launch("src.adapt", *words, *place)
    assert "were there already" in again.stdout
    for path in fits.glob("*/*.json"):
        assert kept.get(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns

    folder = only_run(tmp_path / "third")
    launch("src.evaluate", "--run", folder, "--out", tmp_path / "metrics.json")
    assert read_json(tmp_path / "metrics.json") == pytest.approx(
        read_json(folder / "metrics.json")["test"]
    )
    launch("src.predict", "--run", folder, "--out", tmp_path / "predicted.csv")
    assert (tmp_path / "predicted.csv").read_text().startswith("id,task1,task2,task3")


@pytest.mark.slow
def test_help_names_the_commands_own_flags() -> None:
    shown = launch("src.adapt", "--help").stdout
    for flag in ("shots", "draws", "methods", "steps", "no_test"):
        assert f"  --{flag}" in shown or f"  {flag}" in shown
