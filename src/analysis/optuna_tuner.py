"""Proposes settings by Optuna's samplers, and keeps what they have scored in a file.

The same seed and the same scores give the same settings, after an interruption as well: a sampler
of its own draws each candidate, from a seed that follows from the search's and the number of
candidates before.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from src.analysis.settings import Settings, spell
from src.analysis.space import Choice, Space, count_points, describe_space
from src.errors import UserError, in_one_line, suggest_or_list

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

SAMPLERS = ("tpe", "random", "qmc")
NAME = "search"  # of the one search in a file
RANDOM_FIRST = 10  # candidates of TPE before it looks at scores
MOST_DRAWS = 20  # of settings that were tried before, until any others are taken

State = Literal["running", "finished", "failed", "pruned"]


@dataclass(frozen=True)
class Candidate:
    """Settings that were proposed.

    Attributes:
        settings: The settings.
        state: How their trial stands.
        scores: One for each objective, higher is better; empty where there are none.
    """

    settings: Settings
    state: State
    scores: tuple[float, ...]


class OptunaTuner:
    """Proposes settings, and hears what they have scored.

    Opened once more, it proposes the same candidates in the same order, and then goes on: whoever
    keeps the runs need not train them again.

    Args:
        space: The space.
        trials: Candidates in all; fewer where the space has fewer points.
        storage: The file that keeps them, which one process writes at a time; a search that is in
            it already goes on.
        sampler: tpe (a tree-structured Parzen estimator; Bergstra et al., NeurIPS 2011), random, or
            qmc (a scrambled Sobol sequence).
        seed: Its seed.
        ahead: Candidates that may await their scores at the same time. Candidates that no score can
            change, such as random ones, are not counted.
        objectives: Scores of a candidate; with several there is no best one, but a Pareto front.
        prune_after: Validations after which a candidate can be stopped early; None stops none. One
            is stopped whose best score is below the median of the finished ones after as many
            validations, once there are five.
        replays: Whether candidates of an earlier session are proposed once more; otherwise only
            the ones whose scores are not known.

    Raises:
        UserError: Optuna is not installed, there is no such sampler, or the file is damaged or
            holds another search.
    """

    def __init__(
        self,
        space: Space,
        trials: int,
        storage: Path,
        sampler: str = "tpe",
        seed: int = 0,
        ahead: int = 1,
        objectives: int = 1,
        prune_after: int | None = None,
        replays: bool = True,
    ) -> None:
        check_sampler(sampler)
        assert prune_after is None or objectives == 1, "Optuna prunes by one score"
        points = count_points(space)
        self.space = space
        self.trials = trials if points is None else min(trials, points)
        self.sampler = sampler
        self.seed = seed
        self.ahead = ahead
        with quiet():
            self.study, self._journal = open_study(storage, objectives)
        about = {
            "space": describe_space(space),
            "sampler": sampler,
            "seed": seed,
            "objectives": objectives,
        }
        refuse_other_search(self.study, about, storage)
        self._prune_after = prune_after
        self._numbers: dict[str, int] = {}  # Optuna's, by the settings
        self._queue: list[Settings] = []  # of an earlier session
        self._awaited: set[str] = set()
        self._recall(replays)

    def _recall(self, replays: bool) -> None:
        """Reads the candidates of earlier sessions."""
        for trial in self.study.trials:
            # an interruption may have left a half of one, or a repetition
            if trial.params.keys() != self.space.keys():
                continue
            settings = self._read(trial.params)
            if name(settings) in self._numbers:
                continue
            self._numbers[name(settings)] = trial.number
            if replays or not trial.state.is_finished():
                self._queue.append(settings)
        if replays:
            # a search may be given fewer trials than before
            self._queue = self._queue[: self.trials]

    # -- ask and tell ------------------------------------------------------------------------------
    @property
    def done(self) -> bool:
        """Whether all candidates were proposed, and every score is known."""
        return not self._queue and not self._awaited and len(self._numbers) >= self.trials

    def ask(self) -> Settings | None:
        """Returns settings to try next; None while scores are awaited, or at the end."""
        if self._queue:
            settings = self._queue.pop(0)
        elif len(self._numbers) >= self.trials or self._must_wait():
            return None
        else:
            with quiet():
                settings, number = self._draw()
            self._numbers[name(settings)] = number
        self._awaited.add(name(settings))
        return settings

    def _must_wait(self) -> bool:
        """Returns whether the next candidate depends on scores that are awaited."""
        if self.sampler != "tpe" or len(self._numbers) < RANDOM_FIRST:
            return False
        return len(self._awaited) >= self.ahead

    def tell(
        self, settings: Settings, score: float | Sequence[float] | None, pruned: bool = False
    ) -> None:
        """Notes the validation score of settings.

        Args:
            settings: The settings, as they were proposed.
            score: The score, or one for each objective; None where the trial has failed.
            pruned: Whether the trial was stopped early.
        """
        from optuna.trial import TrialState

        self._awaited.discard(name(settings))
        number = self._numbers[name(settings)]
        # an earlier session has told it
        if self.study.trials[number].state.is_finished():
            return
        scores = [score] if isinstance(score, int | float) else list(score or ())
        if pruned:
            self.study.tell(number, state=TrialState.PRUNED)
        elif not scores or any(isnan(one) for one in scores):
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, scores)

    def must_prune(self, settings: Settings, scores: Sequence[float | None]) -> bool:
        """Notes the validations of a candidate so far; returns whether it is hopeless.

        Args:
            settings: The settings.
            scores: The score of each validation from the first on; None where it is not defined.
        """
        import optuna

        number = self._numbers[name(settings)]
        journal = self._journal
        study = journal.get_study_id_from_name(NAME)
        trial = journal.get_trial_id_from_study_id_trial_number(study, number)
        known = journal.get_trial(trial)
        if self._prune_after is None or known.state.is_finished():
            return False
        pruner = optuna.pruners.MedianPruner(n_warmup_steps=self._prune_after)
        for validation, score in enumerate(scores, start=1):
            if validation in known.intermediate_values or score is None:
                continue
            journal.set_trial_intermediate_value(trial, validation, score)
            if pruner.prune(self.study, journal.get_trial(trial)):
                return True
        return False

    # -- drawing -----------------------------------------------------------------------------------
    def _draw(self) -> tuple[Settings, int]:
        """Draws settings that were not proposed before; returns them with Optuna's number."""
        from optuna.trial import TrialState

        distributions = {key: part.make_distribution() for key, part in self.space.items()}
        for attempt in range(MOST_DRAWS + 1):
            if attempt == MOST_DRAWS:
                self.study.enqueue_trial(self._find_new())
            self.study.sampler = self._make_sampler(attempt)
            trial = self.study.ask(distributions)
            settings = self._read(trial.params)
            if name(settings) not in self._numbers:
                return settings, trial.number
            # samplers do not look at failures
            self.study.tell(trial, state=TrialState.FAIL)
        raise AssertionError("there is a point that was not tried")

    def _find_new(self) -> dict[str, Any]:
        """Returns any point of the space that was not proposed, as Optuna writes it."""
        rng = np.random.default_rng([self.seed, len(self._numbers)])
        while True:
            drawn: dict[str, Any] = {}
            for key, part in self.space.items():
                if isinstance(part, Choice):
                    drawn[key] = spell(part.values[rng.integers(len(part.values))])
                elif part.integer:
                    drawn[key] = int(rng.integers(int(part.low), int(part.high) + 1))
                else:
                    drawn[key] = float(rng.uniform(part.low, part.high))
            if name(self._read(drawn)) not in self._numbers:
                return drawn

    def _make_sampler(self, attempt: int) -> "BaseSampler":
        """Returns the sampler of the next candidate."""
        from optuna import samplers

        if self.sampler == "qmc":
            # all candidates are points of one sequence
            return samplers.QMCSampler(scramble=True, seed=self.seed)
        entropy = np.random.SeedSequence([self.seed, len(self._numbers), attempt])
        seed = int(entropy.generate_state(1)[0])
        if self.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(n_startup_trials=RANDOM_FIRST, seed=seed)

    def _read(self, params: Mapping[str, Any]) -> Settings:
        """Returns the settings of a draw."""
        return {key: part.read(params[key]) for key, part in self.space.items()}

    # -- results -----------------------------------------------------------------------------------
    def list_candidates(self) -> list[Candidate]:
        """Returns all candidates, in the order in which they were proposed."""
        trials = self.study.trials
        return [self._describe(trials[number]) for number in self._numbers.values()]

    def _describe(self, trial: "FrozenTrial") -> Candidate:
        from optuna.trial import TrialState

        states: dict[TrialState, State] = {
            TrialState.COMPLETE: "finished",
            TrialState.PRUNED: "pruned",
            TrialState.FAIL: "failed",
        }
        state = states.get(trial.state, "running")
        scores = tuple(trial.values or ()) if state == "finished" else ()
        return Candidate(self._read(trial.params), state, scores)

    def list_best(self) -> list[Settings]:
        """Returns the settings with the best score, the first of equals.

        Of several objectives it is the Pareto front: all settings that no others match in every
        objective and beat in one.
        """
        front = [self._read(trial.params) for trial in self.study.best_trials]
        if len(self.study.directions) > 1:
            return front
        return front[:1]


# -- the file --------------------------------------------------------------------------------------
def check_sampler(sampler: str) -> None:
    """Checks that there is a sampler, and the package that has it.

    Raises:
        UserError: There is none.
    """
    if sampler not in SAMPLERS:
        raise UserError(f"there is no sampler '{sampler}'; {suggest_or_list(sampler, SAMPLERS)}")
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("a search of settings needs Optuna: pip install optuna") from None


def open_study(path: Path, objectives: int) -> tuple["Study", Any]:
    """Opens the search in a file, or begins one there.

    Returns:
        The search, and its storage.

    Raises:
        UserError: The file is damaged, or of something else.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        drop_half_line(path)
        journal = JournalStorage(JournalFileBackend(str(path)))
        study = optuna.create_study(
            storage=journal,
            study_name=NAME,
            directions=["maximize"] * objectives,
            load_if_exists=True,
        )
        study.trials  # noqa: B018  # reads the file
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise UserError(
            f"{path} is damaged, or is no record of a search: {in_one_line(error)}"
        ) from None
    return study, journal


def drop_half_line(path: Path) -> None:
    """Removes what a killed process has written of its last line, which would spoil the next."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with open(path, "rb+") as file:
            file.truncate(end)


def refuse_other_search(study: "Study", about: Mapping[str, Any], path: Path) -> None:
    """Notes what a new search is, and compares it with what an earlier session has noted.

    Raises:
        UserError: It is another search.
    """
    # as the file would give it back
    about = json.loads(json.dumps(about))
    known = study.user_attrs.get("about")
    if known is None:
        study.set_user_attr("about", about)
        return
    changed = [key for key in about if known.get(key) != about[key]]
    if changed:
        raise UserError(
            f"{path} is of a search with another {' and '.join(changed)}: use another name for "
            "this one, or remove the folder of that one"
        )


def name(settings: Settings) -> str:
    """Returns a text that tells settings from others."""
    return json.dumps({key: spell(value) for key, value in sorted(settings.items())})


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what Optuna says of each candidate, and that a class of it may change."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
