"""A sweep that is being run: which candidates come next, and the record of what they have scored.

<root>/
    trials/<key>/<date-time>/   run folders, shared with the studies of this root
    <sweep>/
        sweep.json              this record
        search.log              Optuna's, from which the sweep goes on
        sweep.lock              who runs the sweep now
"""

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any, TypedDict, cast

from src.analysis.optuna_tuner import OptunaTuner, name
from src.analysis.settings import Settings, spell
from src.analysis.trials import Outcome, Work, name_task_scores, read_progress
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import read_json, to_json

NAME = "sweep.json"


class Try(TypedDict):
    """One candidate of a sweep.

    Attributes:
        settings: {flag: value}, as one types them.
        state: How its trial stands: running, finished, failed or pruned.
        scores: One for each objective; empty where there are none.
        trial: The key of its trial; None where its settings do not go together.
        run: The run folder, relative to the root; None while there is none.
        error: The line that a failed trial has said.
        seconds: Wall-clock time of all its sessions; None while it is not known.
    """

    settings: dict[str, str]
    state: str
    scores: list[float]
    trial: str | None
    run: str | None
    error: str | None
    seconds: float | None


class SweepRecord(TypedDict):
    """The record of a sweep.

    Attributes:
        name: Its name.
        command: The command line that ran it last.
        base: The words of the command line that all trials share.
        base_hash: The hash of the configuration that they stand for.
        space: {flag: values, or the bounds of a range}.
        sampler: The sampler.
        objectives: The metrics of validation that are searched for: val/score, or one of each task.
        best: Positions in `tries`: the best one, or the Pareto front.
        tries: The candidates, in the order in which they were proposed.
    """

    name: str
    command: str
    base: list[str]
    base_hash: str
    space: dict[str, Any]
    sampler: str
    objectives: list[str]
    best: list[int]
    tries: list[Try]


def read_sweep(folder: Path) -> SweepRecord | None:
    """Reads the record of a sweep; None where the folder has none.

    Raises:
        UserError: It is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    return cast(SweepRecord, read_json(path, SweepRecord, "remove the folder to search anew"))


class SweepRun:
    """Says which candidates are next, and keeps the record.

    Args:
        tuner: Proposes settings.
        make: Makes the trial of settings; it raises UserError where they do not go together.
        record: The record, with the candidates of earlier sessions.
        root: The folder of all sweeps and studies.
        folder: The folder of the sweep.
        tasks: The tasks whose scores are searched for; empty for val/score.
        monitors: {task: (metric, 1 where more is better and -1 where less is)}.
    """

    def __init__(
        self,
        tuner: OptunaTuner,
        make: Callable[[Settings], Work],
        record: SweepRecord,
        root: Path,
        folder: Path,
        tasks: Sequence[str],
        monitors: dict[str, tuple[str, int]],
    ) -> None:
        self.tuner = tuner
        self.make = make
        self.record = record
        self.root = root
        self.folder = folder
        self.tasks = list(tasks)
        self.monitors = monitors
        self._known: dict[str, Try] = {}  # candidates, by their settings
        for one in record["tries"]:
            self._known[name(one["settings"])] = one
        self._wanted: dict[str, list[Settings]] = {}  # by the trial that is under way for them
        self._read: dict[Path, int] = {}  # when files of progress were written that were read

    def count(self) -> tuple[int, int]:
        """Returns how many candidates have ended, and how many there are in all."""
        candidates = self.tuner.list_candidates()
        ended = [one for one in candidates if one.state != "running"]
        return len(ended), max(len(candidates), self.tuner.trials)

    # -- what a scheduler asks ---------------------------------------------------------------------
    def take(self) -> Work | None:
        """Returns a trial to start; None while there is nothing to start before others end."""
        while (settings := self.tuner.ask()) is not None:
            try:
                work = self.make(settings)
            except UserError as error:
                self._end([settings], Outcome("failed", error=str(error)), None)
                continue
            self._note(settings, work.key)
            self.save()
            wanted = self._wanted.setdefault(work.key, [])
            wanted.append(settings)
            # two ways to write one configuration
            if len(wanted) == 1:
                return work
        return None

    def finish(self, work: Work, outcome: Outcome) -> None:
        """Notes how a trial has ended; one that was interrupted goes on in the next session."""
        settings = self._wanted.pop(work.key)
        if outcome.status == "interrupted":
            return
        if outcome.run is not None:
            self._report(settings, outcome.run)
        self._end(settings, outcome, work.key)

    def must_stop(self, work: Work, run: Path) -> bool:
        """Returns whether a trial that is under way has no prospect of being the best."""
        return self._report(self._wanted[work.key], run)

    def _report(self, wanted: list[Settings], run: Path) -> bool:
        """Tells the tuner of new validations; returns whether the trial is hopeless."""
        path = run / "progress.json"
        written = path.stat().st_mtime_ns if path.exists() else 0
        if len(self.tasks) > 1 or self._read.get(path, 0) == written:
            return False
        progress = read_progress(path)
        if progress is None:
            return False
        self._read[path] = written
        scores = list_scores(progress, self.tasks[0] if self.tasks else None)
        hopeless = [self.tuner.must_prune(settings, scores) for settings in wanted]
        # a run that has trained its last step ends by itself
        is_over = progress["step"] == progress.get("steps")
        return all(hopeless) and not is_over

    # -- the record --------------------------------------------------------------------------------
    def _end(self, wanted: list[Settings], outcome: Outcome, key: str | None) -> None:
        """Tells the tuner how a trial has ended, and notes it."""
        scores = self._score(outcome)
        error = outcome.error
        if outcome.status == "finished" and scores is None:
            error = f"{' or '.join(self.record['objectives'])} is not defined"
        run = None if outcome.run is None else str(outcome.run.relative_to(self.root))
        for settings in wanted:
            self.tuner.tell(settings, scores, pruned=outcome.status == "pruned")
            one = self._note(settings, key)
            one["run"] = run
            one["error"] = error
            one["seconds"] = outcome.seconds
        self.save()

    def _note(self, settings: Settings, key: str | None) -> Try:
        """Adds a candidate to the record; returns its entry."""
        entry: Try = {
            "settings": {flag: spell(value) for flag, value in settings.items()},
            "state": "running",
            "scores": [],
            "trial": key,
            "run": None,
            "error": None,
            "seconds": None,
        }
        one = self._known.setdefault(name(settings), entry)
        one["trial"] = key or one["trial"]
        return one

    def _score(self, outcome: Outcome) -> list[float] | None:
        """Returns a score for each objective; None where one is not defined."""
        if outcome.status != "finished" or outcome.results is None:
            return None
        scores = name_task_scores(outcome.results, self.monitors)
        found = [scores.get(task) for task in self.tasks]
        if not self.tasks:
            found = [outcome.results["validation"].get("val/score")]
        values = [value for value in found if value is not None and not isnan(value)]
        return values if len(values) == len(found) else None

    def save(self) -> None:
        """Writes the record."""
        tries: list[Try] = []
        places: dict[str, int] = {}
        for candidate in self.tuner.list_candidates():
            settings = candidate.settings
            one = self._note(settings, None)
            one["state"] = candidate.state
            one["scores"] = list(candidate.scores)
            places[name(settings)] = len(tries)
            tries.append(one)
        self.record["tries"] = tries
        self.record["best"] = [places[name(settings)] for settings in self.tuner.list_best()]
        record = self.record
        write_atomically(self.folder / NAME, lambda file: file.write(to_json(record)))


def list_scores(progress: Mapping[str, Any], task: str | None) -> list[float | None]:
    """Returns the score of each validation of a run so far.

    Args:
        progress: How far it has come.
        task: The task whose score counts; None for the score of all.
    """
    points = progress["validations"]
    return [point["score"] if task is None else point["tasks"].get(task) for point in points]
