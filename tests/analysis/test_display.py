"""What a person sees of a study that runs: lines of trials, the time left, a bar for each."""

import io
import json
import time
from pathlib import Path

from rich.console import Console

from src.analysis.display import StudyDisplay, format_seconds
from src.analysis.scheduler import Running
from src.analysis.trials import Outcome, Work
from src.run.contents import Results
from tests.analysis.fake_executor import FakeJob

WORK = Work("abc", "src.train", (), True, "UPGrad, seed 3")


def make_display(root: Path, ended: int, known: int, slots: int = 2) -> StudyDisplay:
    console = Console(file=io.StringIO(), width=100)
    return StudyDisplay(root, lambda: (ended, known), slots, console)


def read(display: StudyDisplay) -> str:
    file = display.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_line_for_each_trial_with_the_time_left(tmp_path: Path) -> None:
    display = make_display(tmp_path, ended=2, known=12)
    results: Results = {"validation": {"val/score": 0.51239}}
    display.tell(WORK, Outcome("finished", results=results), 60)
    # ten trials of a minute, two side by side
    assert read(display) == "[2/12, 5 min 00 s left] UPGrad, seed 3: 1 min 00 s, val score 0.5124\n"


def test_a_failed_trial_says_why_in_one_line(tmp_path: Path) -> None:
    display = make_display(tmp_path, ended=1, known=2)
    why = "the loss of task 'a' is not finite " * 5
    display.tell(WORK, Outcome("failed", error=why.strip()), 60)
    assert read(display) == f"[1/2] UPGrad, seed 3: failed: {why.strip()}\n"


def test_a_trial_that_runs_shows_its_steps_and_its_score(tmp_path: Path) -> None:
    run = tmp_path / "trials" / "abc" / "2026-01-01_00-00-00"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("")
    point = {"step": 40, "epoch": 2, "seconds": 1.0, "score": 0.87654, "tasks": {"a": 0.87654}}
    progress = {"step": 40, "steps": 160, "validations": [point]}
    (run / "progress.json").write_text(json.dumps(progress))
    running = Running(WORK, FakeJob(lambda: 0), 0, since=time.monotonic() - 75)

    display = make_display(tmp_path, ended=3, known=8)
    display.console.print(display.draw([running]))
    text = read(display)
    assert "3 of 8 trials" in text
    assert "UPGrad, seed 3" in text
    assert "step 40 of 160, 1 min 15 s 0.8765" in text


def test_a_trial_that_has_written_nothing_yet_starts(tmp_path: Path) -> None:
    display = make_display(tmp_path, ended=0, known=8)
    running = Running(WORK, FakeJob(lambda: 0), 0)
    display.console.print(display.draw([running]))
    assert "UPGrad, seed 3 starts 0 s" in read(display)


def test_times_in_words() -> None:
    assert format_seconds(59.4) == "59 s"
    assert format_seconds(60) == "1 min 00 s"
    assert format_seconds(3599) == "59 min 59 s"
    assert format_seconds(3600 * 27 + 61) == "27 h 01 min"
