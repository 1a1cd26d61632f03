"""Episodes drawn from the rows of any labelled data module."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from src.batch import InputShape
from src.data.audit.finding import Finding
from src.data.datamodule import MultiTaskDataModule
from src.data.drawn_episodes import DrawnEpisodes, PooledRows, RenamedTask
from src.data.episodic import SIDES, EpisodeRows, EpisodicData, check_sizes
from src.data.rows import Split, standard_split
from src.data.sources import remove_paths
from src.errors import UserError, suggest_or_list
from src.tasks import Classification, Task, is_labelled


@runtime_checkable
class HasRuns(Protocol):
    """Data that come with test episodes of their own, such as Omniglot."""

    def runs(self) -> EpisodeRows:
        """Returns these episodes; their targets are those of one task, 'label'."""


class Episodes(EpisodicData):
    """N-way K-shot episodes over any labelled data, for a model with ``model.meta``.

    (Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016.) Classes are split,
    not rows: no class of the test is in a training episode. An episode has ``ways`` classes,
    which are numbered anew, with ``shots`` support rows and ``queries`` query rows each.

    With ``group``, an episode is one group instead, such as a user or an assay, and labels are
    those of the target: a class or a number. Then ``shots`` and ``queries`` are rows of the group.

    Episodes are functions of (seed, number): the same on any number of devices and after a resume.
    Validation and test have fixed ones, and their mean has a 95 % interval.

    Args:
        source: The data module whose rows are drawn from, of all its splits.
        target: Its task that episodes are of; may be left out where it has one task.
        ways: Classes of an episode.
        shots: Support rows of each class.
        queries: Query rows of each class.
        group: A task of the source with a class for each group, which an episode takes its rows
            from; None draws classes of the target.
        keep_together: A task of the source whose classes are split as a whole, such as the alphabet
            of a character; None splits the classes or groups themselves.
        val_classes: What validates: a share of the classes, or their names. With keep_together or
            group, of its classes.
        test_classes: What tests, likewise.
        own_runs: Whether the test is on the episodes that come with the source, such as Omniglot's
            20 runs.
        split_seed: Seed of the split, and of the episodes that validate and test.
        schema_path: A run's schema.json; the source must read its columns as that run did.
        episodes_per_batch: Episodes per step over all devices together.
        episodes_per_epoch: Training episodes of an epoch; each epoch has new ones.
        val_episodes: Episodes that validate.
        test_episodes: Episodes that test.
        eval_batch_size: Rows per evaluation step over all devices together, in whole episodes.
        num_workers: Processes that prepare batches.
        seed: Seed of the training episodes.
    """

    def __init__(
        self,
        source: MultiTaskDataModule,
        target: str | None = None,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        group: str | None = None,
        keep_together: str | None = None,
        val_classes: float | list[str] = 0.2,
        test_classes: float | list[str] = 0.2,
        own_runs: bool = False,
        split_seed: int = 0,
        schema_path: str | None = None,
        episodes_per_batch: int = 8,
        episodes_per_epoch: int = 800,
        val_episodes: int = 200,
        test_episodes: int = 600,
        eval_batch_size: int = 2048,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        if isinstance(source, EpisodicData):
            raise UserError(
                f"data.source {type(source).__name__} has episodes already: choose it by --data"
            )
        check_sizes(ways=ways, shots=shots, queries=queries)
        if group is None and ways < 2:
            raise UserError(f"data.ways is {ways}; there is nothing to tell apart below 2 classes")
        self.ways = 1 if group is not None else ways
        super().__init__(
            episodes_per_batch,
            episodes_per_epoch,
            val_episodes,
            test_episodes,
            self.ways * (shots + queries),
            eval_batch_size,
            num_workers,
            seed,
        )
        self.source = source
        self.given_target = target
        self.shots = shots
        self.queries = queries
        self.group = group
        self.keep_together = keep_together
        self.shares = {"val": val_classes, "test": test_classes}
        self.own_runs = own_runs
        self.split_seed = split_seed
        self.schema_path = schema_path

    def prepare_data(self) -> None:
        """Lets the source download what it needs."""
        self.source.prepare_data()

    # -- the task ----------------------------------------------------------------------------------
    @cached_property
    def target(self) -> str:
        """The source's task that episodes are of."""
        known = self.source.tasks
        if self.given_target is None:
            others = [name for name in known if name not in (self.group, self.keep_together)]
            if len(others) != 1:
                raise UserError(
                    f"data.target is missing: name one of the source's tasks {', '.join(others)}"
                )
            return others[0]
        return self._find_task("target", self.given_target)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The task of every episode: its classes are numbers, or those of the target in groups."""
        # every command asks for the tasks first, so that other files are refused here
        self._compare_schema()
        task = self.source.tasks[self.target]
        if self.group is not None:
            return {self.target: task}
        self._find_classes("target", self.target)
        classes = tuple(range(1, self.ways + 1))
        return {self.target: Classification(classes=classes, depth=task.depth, width=task.width)}

    @property
    def input_shape(self) -> InputShape:
        """The shape of one row of the source."""
        return self.source.input_shape

    def _find_task(self, key: str, name: str) -> str:
        known = self.source.tasks
        if name not in known:
            raise UserError(f"data.{key} names '{name}'; {suggest_or_list(name, known)}")
        return name

    def _find_classes(self, key: str, name: str) -> Classification:
        """Returns a task of the source, which must have classes."""
        task = self.source.tasks[self._find_task(key, name)]
        if not isinstance(task, Classification):
            way_out = "" if key != "target" else ", or name groups of rows with data.group"
            raise UserError(
                f"data.{key} '{name}' is a {type(task).__name__}, which has no classes to draw "
                f"from: name a Classification{way_out}"
            )
        return task

    # -- the split ---------------------------------------------------------------------------------
    @cached_property
    def rows(self) -> PooledRows:
        """All rows of the source."""
        splits = [self.source.split(name) for name in ("train", "val", "test")]
        for split in splits:
            if len(split) and split[torch.tensor([0])].weights:
                raise UserError(
                    "data.source gives its rows weights, which episodes do not read: leave out "
                    "row_weight"
                )
        return PooledRows([split for split in splits if len(split)])

    @cached_property
    def members(self) -> dict[str, dict[int, Tensor]]:
        """{side: {class or group: its rows}}, without classes that have too few rows."""
        drawn = self.group or self.target
        task = self._find_classes("group" if self.group else "target", drawn)
        codes = self.rows.targets(drawn)
        known = is_labelled(codes) & is_labelled(self.rows.targets(self.target))
        sides = self._sides()
        found: dict[str, dict[int, Tensor]] = {side: {} for side in SIDES}
        largest = 0
        for number in range(len(task.classes)):
            rows = ((codes == number) & known).nonzero().flatten()
            largest = max(largest, len(rows))
            if len(rows) < self.shots + self.queries:
                continue
            side = sides[int(self._units[rows[0]])]
            found[side][number] = rows
        self._check_members(found, drawn, largest)
        return found

    def _check_members(
        self, found: Mapping[str, Mapping[int, Tensor]], drawn: str, largest: int
    ) -> None:
        """Refuses sides from which no episode can be drawn."""
        need = self.shots + self.queries
        word = "group" if self.group else "class"
        if largest < need:
            raise UserError(
                f"data.shots + data.queries is {need}, but no {word} of '{drawn}' has more than "
                f"{largest} rows"
            )
        for side, members in found.items():
            if side == "test" and self.own_runs:
                continue
            if len(members) < self.ways:
                wanted = f"data.ways is {self.ways}" if not self.group else "an episode is a group"
                raise UserError(
                    f"{wanted}, but the {side} side has {len(members)} classes of '{drawn}' with "
                    f"{need} rows or more: change data.{'test' if side == 'test' else 'val'}"
                    "_classes, data.ways, data.shots or data.queries"
                )

    @cached_property
    def _units(self) -> Tensor:
        """(N,) What each row belongs to that lies on one side."""
        return self.rows.targets(self.keep_together or self.group or self.target)

    def _sides(self) -> list[str]:
        """Returns the side of each unit."""
        key = "keep_together" if self.keep_together else "group" if self.group else "target"
        name = self.keep_together or self.group or self.target
        names = [str(label) for label in self._find_classes(key, name).classes]
        sides = ["train"] * len(names)
        free = list(range(len(names)))
        for side in ("test", "val"):
            share = self.shares[side]
            if not isinstance(share, list):
                continue
            for label in share:
                if str(label) not in names:
                    raise UserError(
                        f"data.{side}_classes names '{label}', which is no class of '{name}'; "
                        f"{suggest_or_list(str(label), names)}"
                    )
                place = names.index(str(label))
                if place not in free:
                    raise UserError(f"data.{side}_classes: '{label}' is on another side already")
                sides[place] = side
                free.remove(place)
        given = {}
        for side, share in self.shares.items():
            if not isinstance(share, list) and not 0 <= share < 1:
                raise UserError(f"data.{side}_classes is {share}; a share lies in [0, 1)")
            given[side] = 0.0 if isinstance(share, list) else float(share)
        dealt = standard_split(len(free), self.split_seed, given["val"], given["test"])
        for side in ("val", "test"):
            for place in dealt[side].tolist():
                sides[free[place]] = side
        return sides

    def split(self, name: Split) -> EpisodeRows:
        """Returns the episodes of a split; prediction takes the test's."""
        return self._splits["test" if name == "predict" else name]

    @cached_property
    def _splits(self) -> dict[str, EpisodeRows]:
        found: dict[str, EpisodeRows] = {}
        if self.own_runs:
            found["test"] = self._find_runs()
        labels = self.rows.targets(self.target) if self.group is not None else None
        for side, number in SIDES.items():
            key = (number, self.seed if side == "train" else self.split_seed)
            if side in found:
                continue
            found[side] = DrawnEpisodes(
                self.rows,
                self.members[side],
                self.target,
                labels,
                key,
                self.counts[side],
                self.ways,
                self.shots,
                self.queries,
            )
        return found

    def _find_runs(self) -> EpisodeRows:
        """Returns the test episodes that come with the source."""
        if not isinstance(self.source, HasRuns):
            raise UserError(
                f"data.own_runs: {type(self.source).__name__} comes with no episodes of its own"
            )
        runs = self.source.runs()
        if self.group is not None or runs.supports != self.ways * self.shots:
            raise UserError(
                f"data.own_runs: these episodes have {runs.supports} classes of one row, so that "
                f"data.ways must be {runs.supports} and data.shots 1, without data.group"
            )
        return RenamedTask(runs, self.target)

    # -- the source's record -----------------------------------------------------------------------
    def notes(self) -> list[str]:
        """Returns what episodes are of, and from what they are drawn."""
        counts = ", ".join(f"{len(self.members[side])} {side}" for side in SIDES)
        word = f"groups of '{self.group}'" if self.group else f"classes of '{self.target}'"
        return [*super().notes(), f"episodes over {word}: {counts}"]

    def files(self) -> list[str]:
        return self.source.files()

    def audit(self, thorough: bool = False) -> list[Finding]:
        """Returns the findings on the source; the rows of a class are on one side by intent."""
        found = [one.below("source") for one in self.source.audit(thorough)]
        return [one for one in found if one.check not in ("classes", "shift")]

    def fingerprint(self) -> dict[str, Any] | None:
        return self.source.fingerprint()

    def check_files(self, all_there: bool = True) -> None:
        self.source.check_files(all_there)
        self._compare_schema()

    def schema(self) -> dict[str, Any] | None:
        """Returns the source's schema, if it has one."""
        schema = self.source.schema()
        return None if schema is None else {"source": schema}

    def _compare_schema(self) -> None:
        """Refuses files that would be read in another way than in the run of the schema."""
        if self.schema_path is None:
            return
        try:
            saved = json.loads(Path(self.schema_path).read_text())["source"]
        except (ValueError, KeyError):
            raise UserError(f"{self.schema_path} is damaged: it is no schema of episodes") from None
        if remove_paths(self.source.schema()) != remove_paths(saved):
            raise UserError(
                f"data.source has other rows or columns than in the run of {self.schema_path}: a "
                "run on episodes is opened on the files that it was trained on"
            )
