"""Trainings that differ in their seed alone, each a process of its own."""

import sys
from collections.abc import Sequence
from pathlib import Path

from src.analysis.display import StudyDisplay
from src.analysis.scheduler import Scheduler, Stopped
from src.analysis.trials import Outcome, Work
from src.errors import UserError
from src.launch.executors import Executor


class SeedTrials:
    """Trains with several seeds; trained again, it keeps the runs that have finished.

    Run folders lie below <root>/trials/. One training that fails ends the whole, since a result
    over fewer seeds is another one than was asked for.

    Args:
        root: The folder of all of them.
        works: The trainings.

    Attributes:
        runs: {label of a training: its run folder}, in the order in which they have ended.
    """

    def __init__(self, root: Path, works: Sequence[Work]) -> None:
        self.root = root
        self.works = works
        self.left = list(works)
        self.runs: dict[str, Path] = {}
        self.failed: dict[str, str] = {}

    # -- the loop's questions ----------------------------------------------------------------------
    def take(self) -> Work | None:
        """Returns the next training."""
        return self.left.pop(0) if self.left else None

    def finish(self, work: Work, outcome: Outcome) -> None:
        """Notes the run folder of a training, or why it has failed."""
        if outcome.status == "finished" and outcome.run is not None:
            self.runs[work.label] = outcome.run
        elif outcome.status == "failed":
            self.failed[work.label] = outcome.error or "it failed"
            self.left.clear()

    def must_stop(self, work: Work, run: Path) -> bool:
        """Stops no training early."""
        return False

    def count(self) -> tuple[int, int]:
        """Returns how many trainings have ended, and how many there are."""
        return len(self.runs) + len(self.failed), len(self.works)

    # -- the whole ---------------------------------------------------------------------------------
    def train(self, executor: Executor) -> list[Path]:
        """Trains with each seed; returns the run folders in the order of the seeds.

        Ctrl-C ends the process, and leaves runs with which the same command goes on.

        Raises:
            UserError: A training has failed.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with StudyDisplay(self.root, self.count, slots=executor.slots) as display:
            try:
                Scheduler(self.root, executor, self, display).run()
            except Stopped:
                ended, known = self.count()
                print(
                    f"stopped after {ended} of {known} seeds, which are kept: the same command "
                    "goes on",
                    file=sys.stderr,
                    flush=True,
                )
                sys.exit(130)
        for label, error in self.failed.items():
            raise UserError(f"{label}: {error}")
        return [self.runs[work.label] for work in self.works]
