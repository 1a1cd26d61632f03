"""The key of a trial: the hash of its resolved configuration and of its data.

Configurations are resolved as ``src.train`` would resolve them, so that a mistake in one of them
comes up before the first trial trains, and the same trial has the same key however it is written.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, cast

from src.cli.app import CLI
from src.cli.classes import find_ours
from src.cli.training import OWN
from src.data import MultiTaskDataModule
from src.errors import UserError
from src.files.yaml12 import load
from src.tasks import Task

LENGTH = 12  # letters of a key: with a million trials two are alike once in 500 studies
# settings that say where a run lies or what else it does, and change none of its numbers
NOT_OF_A_TRIAL = (
    *("name", "logs", "no_test", "resume", "plan", "trust", "reference"),
    *("ensemble", "parallel"),
)


class Parsed(CLI):
    """A command line that is parsed and checked; nothing is built from it."""

    def instantiate_classes(self) -> None:
        """Builds nothing."""

    def after_instantiate_classes(self) -> None:
        """Checks nothing that was not built."""


class TrialKeys:
    """Resolves the configurations of trials.

    Args:
        base: The words of the command line that all trials share.
    """

    def __init__(self, base: Sequence[str]) -> None:
        self.base = list(base)
        self._trees: dict[tuple[str, ...], dict[str, Any]] = {}
        self._data: dict[str, Any] = {}  # fingerprints by the settings of the data

    def check(self, words: Sequence[str]) -> CLI:
        """Builds data and model as a run would, on devices that need not be here.

        Args:
            words: The words behind those of the base.

        Raises:
            UserError: A setting is wrong, or does not go with the others.
        """
        cli = CLI([*self.base, *words, "--plan"], own=OWN, trains=True)
        self._trees[tuple(words)] = load(cli.yaml)
        self._data[self._name_data(words)] = cli.datamodule.fingerprint()
        return cli

    def resolve(self, words: Sequence[str]) -> dict[str, Any]:
        """Returns the resolved configuration; each is parsed once.

        Raises:
            UserError: A setting is wrong.
        """
        known = tuple(words)
        if known not in self._trees:
            self._trees[known] = load(Parsed([*self.base, *words], own=OWN, trains=True).yaml)
        return self._trees[known]

    def make_key(
        self, module: str, words: Sequence[str], seed: int, fold: int | None, method: str = ""
    ) -> str:
        """Returns the key of a trial.

        Args:
            module: The command that trains it.
            words: The words behind those of the base, without seed and fold.
            seed: Its seed.
            fold: Its fold; None where the data have one split.
            method: The kind of a reference, which no setting of a model changes.
        """
        whole = self.resolve(words)
        tree = {key: value for key, value in whole.items() if key not in NOT_OF_A_TRIAL}
        if method:
            tree = {"data": tree["data"]}
        if self._name_data(words) not in self._data:
            self.check(words)
        content = {
            "module": module,
            "method": method,
            "config": tree | {"seed_everything": seed},
            "fold": fold,
            "data": self._data[self._name_data(words)],
        }
        return make_hash(content)

    def _name_data(self, words: Sequence[str]) -> str:
        return json.dumps(self.resolve(words)["data"], sort_keys=True, default=str)


def make_hash(content: object) -> str:
    """Returns a short hash of plain values, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def read_monitors(tasks: dict[str, Task]) -> dict[str, tuple[str, int]]:
    """Returns {task: (metric that counts, 1 where more of it is better and -1 where less is)}."""
    found = {}
    for name, task in tasks.items():
        found[name] = (task.monitor, -1 if task.prefers_less(task.monitor) else 1)
    return found


def refuse_missing_folds(data: MultiTaskDataModule, folds: int | None) -> None:
    """Refuses folds of data that have one split.

    Raises:
        UserError: They are asked for.
    """
    if folds is not None and not data.can_fold:
        kinds = cast(list[type[MultiTaskDataModule]], find_ours(MultiTaskDataModule))
        able = [kind.__name__ for kind in kinds if kind.can_fold]
        raise UserError(
            f"folds: {type(data).__name__} has one split of its own and no folds, which "
            f"{', '.join(able)} have: leave folds out"
        )
