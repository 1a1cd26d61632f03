"""The plan of a study: its trials, walked through without training any, and the time they take."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from src.analysis.display import format_seconds
from src.analysis.study import SINGLE_TASK, Study
from src.analysis.study_run import StudyRun
from src.analysis.trials import Outcome, Work, look_at


@dataclass
class Walk:
    """The trials of a study, as far as they do not depend on what others find.

    Attributes:
        works: {key: trial}.
        outcomes: {key: how it stands on the disk}.
        further: Candidates that a sampler will propose, which nobody knows yet.
    """

    works: dict[str, Work]
    outcomes: dict[str, Outcome]
    further: int

    @property
    def total(self) -> int:
        """Trials in all."""
        return len(self.works) + self.further

    @property
    def left(self) -> list[Work]:
        """The trials that are not done."""
        return [work for key, work in self.works.items() if not self.outcomes[key].serves(work)]


def walk(run: StudyRun, root: Path, monitors: Mapping[str, tuple[str, int]], further: int) -> Walk:
    """Walks through a study: each trial that is not done is taken to score 0.

    Args:
        run: The study, which is used up.
        root: The folder of all studies.
        monitors: {task: (metric, sign)}.
        further: Candidates that a sampler will propose.
    """
    values: dict[str, float | None] = {"val/score": 0.0}
    for task, (metric, _) in monitors.items():
        values[f"val/{task}/{metric}"] = 0.0
    outcomes: dict[str, Outcome] = {}
    while (work := run.take()) is not None:
        found = look_at(root, work.key)
        outcomes[work.key] = found
        if not found.serves(work):
            # some place below the root, which no file is looked for in
            pretended = root / work.key
            found = Outcome("finished", pretended, {"validation": values, "test": values})
        run.finish(work, found)
    return Walk(dict(run.works), outcomes, further)


def tabulate(study: Study, run: StudyRun) -> Table:
    """Returns a table of the rows: what each changes, what is tuned, how often it is repeated."""
    table = Table(box=None, pad_edge=False)
    for heading in ("row", "settings"):
        table.add_column(heading, overflow="fold")
    for heading in ("tuned on", "replicates"):
        table.add_column(heading, justify="right")
    for row in run.record["rows"]:
        words = [f"{key} {value}" for key, value in row["settings"].items()]
        candidates = len(row["candidates"])
        if candidates and study.tuning is not None and study.tuning.method != "grid":
            # a walk knows one of them
            candidates += study.tuning.trials - 1
        tuned = f"{candidates} runs" if candidates else "-"
        table.add_row(row["name"], ", ".join(words), tuned, str(len(row["replicates"])))
    return table


@dataclass(frozen=True)
class Pace:
    """How long a trial takes.

    Attributes:
        start: Seconds until it trains, and from the end of training to its own.
        step: Seconds of an optimizer step, with its share of validations.
        steps: Optimizer steps that a trial may take.
    """

    start: float
    step: float
    steps: int

    @property
    def trial(self) -> float:
        """Seconds of a trial that is not stopped early."""
        return self.start + self.step * self.steps


def estimate(walk: Walk, pace: Pace, tasks: int, slots: int) -> str:
    """Returns in words how long the trials that are left take.

    A trial counts as long as one of the base does, and one of single-task networks T times that.
    The trials of one row that have ended say better than this how long the others take.

    Args:
        walk: The trials.
        pace: How long a trial of the base takes.
        tasks: The number T of tasks.
        slots: Trials side by side.
    """
    seconds = walk.further * pace.trial
    for work in walk.left:
        factor = tasks if work.label.startswith(SINGLE_TASK) else 1
        seconds += pace.start + factor * pace.step * pace.steps
    return format_seconds(seconds / slots)
