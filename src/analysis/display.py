"""The progress of a study on a terminal: all trials, each one that runs, and the time left."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from src.analysis.scheduler import Running
from src.analysis.trials import Outcome, Work, find_runs, read_progress

PERIOD = 1.0  # seconds between two looks at the runs' files


class StudyDisplay:
    """Shows trials on standard error: a live table on a terminal, a line for each elsewhere.

    Args:
        root: The folder of all studies.
        count: Returns how many trials have ended, and how many there are as far as is known.
        slots: How many run side by side.
        console: Where to show it.
    """

    def __init__(
        self,
        root: Path,
        count: Callable[[], tuple[int, int]],
        slots: int,
        console: Console | None = None,
    ) -> None:
        self.root = root
        self.count = count
        self.slots = slots
        self.console = console or Console(stderr=True)
        self.durations: list[float] = []
        self._shown = 0.0
        self._live: Live | None = None

    def __enter__(self) -> "StudyDisplay":
        """Begins to draw where there is a terminal."""
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Takes the table off the terminal."""
        if self._live is not None:
            self._live.stop()

    def show(self, running: list[Running]) -> None:
        """Draws the trials that are under way."""
        now = time.monotonic()
        if self._live is None or now - self._shown < PERIOD:
            return
        self._shown = now
        self._live.update(self.draw(running))

    def tell(self, work: Work, outcome: Outcome, seconds: float) -> None:
        """Prints a line for a trial that has ended.

        Args:
            work: The trial.
            outcome: How it has ended.
            seconds: Wall-clock time of its process, its start included.
        """
        ended, known = self.count()
        words: str = outcome.status
        if outcome.status == "finished":
            self.durations.append(seconds)
            words = format_seconds(seconds)
            score = outcome.results and outcome.results["validation"].get("val/score")
            if score is not None:
                words += f", val score {score:.4f}"
        if outcome.error:
            words = f"failed: {outcome.error}"
        left = self.estimate_left()
        left = f", {left} left" if left else ""
        line = f"[{ended}/{known}{left}] {work.label}: {words}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def estimate_left(self) -> str:
        """Returns the time left in words, by the mean of the trials so far; "" before the first."""
        ended, known = self.count()
        if not self.durations or known <= ended:
            return ""
        mean = sum(self.durations) / len(self.durations)
        return format_seconds(mean * (known - ended) / self.slots)

    def draw(self, running: list[Running]) -> Group:
        """Returns a bar of the whole study, and a line for each trial that runs."""
        ended, known = self.count()
        left = self.estimate_left()
        whole = Table.grid(padding=(0, 1))
        whole.add_row(
            Text(f"{ended} of {known} trials", style="bold"),
            ProgressBar(total=max(known, 1), completed=ended, width=30),
            Text(f"{left} left" if left else ""),
        )
        lines = Table.grid(padding=(0, 1))
        for one in running:
            lines.add_row(*self.draw_trial(one))
        return Group(whole, lines)

    def draw_trial(self, running: Running) -> tuple[Any, ...]:
        """Returns the cells of a trial that runs."""
        progress = self.read_progress(running.work.key)
        took = format_seconds(time.monotonic() - running.since)
        name = Text(f"  {running.work.label}", overflow="ellipsis", no_wrap=True)
        if progress is None:
            return name, Text("starts"), Text(took), Text("")
        step = progress["step"]
        steps = progress.get("steps")
        last = progress["validations"][-1] if progress["validations"] else {}
        score = last.get("score")
        bar = ProgressBar(total=steps or 1, completed=step if steps else 0, width=20)
        words = f"step {step}" + (f" of {steps}" if steps else "")
        return name, bar, Text(f"{words}, {took}"), Text(f"{score:.4f}" if score else "")

    def read_progress(self, key: str) -> dict[str, Any] | None:
        """Returns what a run has written of its progress; None where it has not, yet."""
        runs = find_runs(self.root, key)
        return read_progress(runs[0] / "progress.json") if runs else None


def format_seconds(seconds: float) -> str:
    """Returns a time in words."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
