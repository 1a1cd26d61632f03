"""A study that is being run: which trials come next, and the record of what they have found."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from src.analysis.design import Maker, Steps, carry_out, make_row
from src.analysis.record import Row, StudyRecord, Trial, write_study
from src.analysis.study import Study
from src.analysis.trials import Outcome, Work, describe_command


@dataclass
class Progress:
    """A row on one fold, as far as it has come.

    Attributes:
        steps: The generator of its trials.
        waiting: The trials that it needs before it goes on.
        over: Whether it needs no more.
    """

    steps: Steps
    waiting: list[Work] = field(default_factory=list)
    over: bool = False


class StudyRun:
    """Says which trials are next, and keeps the record.

    Args:
        study: The study.
        make: Makes trials.
        record: The record; its rows and trials are made anew.
        root: The folder of all studies, which run folders are noted relative to.
        folder: The folder of the study, where the record is written; None writes nothing.
    """

    def __init__(
        self,
        study: Study,
        make: Maker,
        record: StudyRecord,
        root: Path,
        folder: Path | None = None,
    ) -> None:
        self.record = record
        self.root = root
        self.folder = folder
        self.outcomes: dict[str, Outcome] = {}
        self.works: dict[str, Work] = {}
        self.expected = 0  # trials, as far as a plan knows
        self._queue: deque[Work] = deque()
        self._under_way: set[str] = set()

        self.rows: list[Progress] = []
        record["rows"] = []
        record["trials"] = {}
        folds = [None] if study.folds is None else list(range(study.folds))
        for variant in study.variants:
            row: Row = make_row(variant)
            record["rows"].append(row)
            for fold in folds:
                progress = Progress(carry_out(study, variant, fold, make, row))
                self.rows.append(progress)
        for progress in self.rows:
            self._begin(progress)
        self._advance()

    def count(self) -> tuple[int, int]:
        """Returns how many trials have ended, and how many there are as far as is known."""
        return len(self.outcomes), max(self.expected, len(self.works))

    # -- what a scheduler asks ---------------------------------------------------------------------
    def take(self) -> Work | None:
        """Returns a trial to start; None while there is nothing to start before others end."""
        if not self._queue:
            return None
        work = self._queue.popleft()
        self._under_way.add(work.key)
        self._note(work, Outcome("running"))
        return work

    def finish(self, work: Work, outcome: Outcome) -> None:
        """Notes how a trial has ended, and lets the rows go on that have waited for it."""
        self._under_way.discard(work.key)
        self._note(work, outcome)
        # one that was interrupted is no result; the loop is about to end
        if outcome.status != "interrupted":
            self.outcomes[work.key] = outcome
            self._advance()
        self.save()

    def must_stop(self, work: Work, run: Path) -> bool:
        """Returns False: every trial of a study trains to its end."""
        return False

    # -- rows --------------------------------------------------------------------------------------
    def _begin(self, progress: Progress) -> None:
        try:
            progress.waiting = next(progress.steps)
        except StopIteration:
            progress.over = True
        self._note_all(progress.waiting)

    def _advance(self) -> None:
        """Lets rows go on as far as they can, and queues what they need."""
        for progress in self.rows:
            while not progress.over and all(self._is_settled(work) for work in progress.waiting):
                known = {work.key: self.outcomes[work.key] for work in progress.waiting}
                try:
                    progress.waiting = progress.steps.send(known)
                except StopIteration:
                    progress.over = True
                    progress.waiting = []
                self._note_all(progress.waiting)
        queued = {work.key for work in self._queue}
        for progress in self.rows:
            for work in progress.waiting:
                if work.key in queued | self._under_way or self._is_settled(work):
                    continue
                queued.add(work.key)
                self._queue.append(work)

    def _is_settled(self, work: Work) -> bool:
        """Returns whether a trial has ended in a way that serves this wish, or has failed."""
        outcome = self.outcomes.get(work.key)
        if outcome is None:
            return False
        return outcome.status != "finished" or outcome.serves(work)

    # -- the record --------------------------------------------------------------------------------
    def _note_all(self, works: list[Work]) -> None:
        for work in works:
            if work.key not in self.works:
                self._note(work, Outcome("planned"))

    def _note(self, work: Work, outcome: Outcome) -> None:
        self.works[work.key] = work
        run = None if outcome.run is None else str(outcome.run.relative_to(self.root))
        trial: Trial = {
            "command": describe_command(work),
            "run": run,
            "status": outcome.status,
            "error": outcome.error,
            "seconds": outcome.seconds,
        }
        self.record["trials"][work.key] = trial

    def save(self) -> None:
        """Writes the record, where the study has a folder."""
        if self.folder is not None:
            write_study(self.folder, self.record)

    def end(self) -> None:
        """Notes that every trial has ended."""
        self.record["finished"] = True
        self.save()
