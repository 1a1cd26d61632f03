"""The loop over the processes of a study or a sweep: starts, watches, resumes and stops them."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Protocol

from src.analysis.trials import (
    TRIALS,
    Outcome,
    Work,
    find_runs,
    look_at,
    make_command,
    read_sessions,
)
from src.errors import UserError
from src.launch.executors import Executor, Job
from src.run import Run

PERIOD = 0.2  # seconds between two looks at the processes
PATIENCE = 60.0  # seconds that a run has to save its checkpoint when it is asked to stop


class Stopped(Exception):
    """Ctrl-C or SIGTERM has stopped the loop; runs that were under way can be resumed."""


class Source(Protocol):
    """Whoever wants trials: a study, a sweep."""

    def take(self) -> Work | None:
        """Returns a trial to start; None while there is nothing to start before others end."""

    def finish(self, work: Work, outcome: Outcome) -> None:
        """Hears how a trial has ended."""

    def must_stop(self, work: Work, run: Path) -> bool:
        """Returns whether a trial that is under way is to be stopped, as a hopeless one."""


class Display(Protocol):
    """Whoever shows a person how far the loop is."""

    def show(self, running: "list[Running]") -> None:
        """Shows the trials that are under way."""

    def tell(self, work: Work, outcome: Outcome, seconds: float) -> None:
        """Says how a trial has ended, and how long its process took."""


@dataclass
class Running:
    """A trial that is under way.

    Attributes:
        work: The trial.
        job: Its process.
        slot: Which of the processes that run side by side it is.
        since: When it was started, on the monotonic clock.
        pruned: When it was asked to stop as a hopeless one; None where it was not.
    """

    work: Work
    job: Job
    slot: int
    since: float = field(default_factory=time.monotonic)
    pruned: float | None = None


class Scheduler:
    """Runs trials, as many side by side as the executor has slots.

    Args:
        root: The folder of all studies.
        executor: Where processes run.
        source: Whoever wants trials.
        display: Whoever shows how far the loop is.
    """

    def __init__(self, root: Path, executor: Executor, source: Source, display: Display) -> None:
        self.root = root
        self.executor = executor
        self.source = source
        self.display = display
        self.running: list[Running] = []
        self._asked_to_stop = False

    def run(self) -> None:
        """Runs until the source has nothing left to start.

        Raises:
            Stopped: A signal has stopped it.
            UserError: A process cannot be started.
        """
        try:
            with self._listening():
                while not self._asked_to_stop:
                    self._fill_slots()
                    self.display.show(self.running)
                    if not self.running:
                        return
                    time.sleep(PERIOD)
                    self._look_after()
                self._stop_all()
        finally:
            # an error of the loop itself must leave no process behind
            for running in self.running:
                running.job.kill()
            self.executor.close()
        raise Stopped

    def ask_to_stop(self) -> None:
        """Asks the loop to end, with runs that can be resumed."""
        self._asked_to_stop = True

    # -- one round ---------------------------------------------------------------------------------
    def _fill_slots(self) -> None:
        while len(self.running) < self.executor.slots:
            work = self.source.take()
            if work is None:
                return
            before = look_at(self.root, work.key)
            if before.serves(work):
                self.source.finish(work, before)
                continue
            self.refuse_taken(before)
            self.running.append(self._start(work, before))

    def refuse_taken(self, before: Outcome) -> None:
        """Refuses a trial whose run folder another process trains in.

        Raises:
            UserError: There is one.
        """
        if before.run is not None and (holder := Run(before.run).lock.holder()) is not None:
            raise UserError(
                f"{before.run} is being trained by {holder}, of another study in this folder: "
                "wait until that has ended"
            )

    def _start(self, work: Work, before: Outcome) -> Running:
        folder = self.root / TRIALS / work.key
        folder.mkdir(parents=True, exist_ok=True)
        taken = {running.slot for running in self.running}
        slot = min(set(range(self.executor.slots)) - taken)
        command = make_command(self.root, work, before)
        return Running(work, self.executor.start(command, folder / "log.txt", slot), slot)

    def _look_after(self) -> None:
        for running in list(self.running):
            code = running.job.poll()
            if code is not None:
                self.running.remove(running)
                self._end(running, code)
                continue
            self._prune_if_due(running)

    def _prune_if_due(self, running: Running) -> None:
        if running.pruned is not None:
            # one that does not hear must not keep its slot
            if time.monotonic() - running.pruned > PATIENCE:
                running.job.kill()
            return
        runs = find_runs(self.root, running.work.key)
        if runs and self.source.must_stop(running.work, runs[0]):
            running.pruned = time.monotonic()
            running.job.stop()

    def _end(self, running: Running, code: int) -> None:
        outcome = self.judge(running, code)
        self.source.finish(running.work, outcome)
        self.display.tell(running.work, outcome, time.monotonic() - running.since)

    def judge(self, running: Running, code: int) -> Outcome:
        """Returns how a trial has ended, by its run folder and its exit code."""
        outcome = look_at(self.root, running.work.key)
        if outcome.serves(running.work):
            return outcome
        if running.pruned is not None:
            return replace(outcome, status="pruned")
        if self._asked_to_stop:
            return replace(outcome, status="interrupted")
        # a run that has failed before its first checkpoint has a folder, too
        run = outcome.run or next(iter(find_runs(self.root, running.work.key)), None)
        seconds = outcome.seconds
        if run is not None and seconds is None:
            seconds = read_sessions(Run(run))[1]
        why = running.job.explain() or f"it ended with exit code {code}"
        return Outcome("failed", run, None, why, seconds)

    # -- the end -----------------------------------------------------------------------------------
    def _stop_all(self) -> None:
        """Lets runs save their checkpoints, and ends the ones that do not."""
        for running in self.running:
            running.job.stop()
        until = time.monotonic() + PATIENCE
        while self.running and time.monotonic() < until:
            for running in list(self.running):
                code = running.job.poll()
                if code is not None:
                    self.running.remove(running)
                    self._end(running, code)
            time.sleep(PERIOD)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Takes signals as a wish to stop; a second one ends the processes at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def hear(number: int, frame: FrameType | None) -> None:
            if self._asked_to_stop:
                raise KeyboardInterrupt
            self.ask_to_stop()

        before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, hear)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
