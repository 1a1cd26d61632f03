"""Tasks that come with their own data sets: the rows of several data modules as one stream."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_warn

from src.batch import InputShape
from src.data.audit.finding import Finding, sort_findings
from src.data.concat import MultiSourceDataset
from src.data.datamodule import MultiTaskDataModule
from src.data.multi_source_sampler import TOGETHER, MultiSourceBatches, Sampler
from src.data.rows import BatchDataset, Split
from src.data.stream import GlobalBatches
from src.errors import UserError, suggest_or_list
from src.tasks import Task
from src.tasks.dependence import rename_dependence


class Sources(MultiTaskDataModule):
    """Several data modules as one: their rows have labels for the tasks of their own source alone.

    The inputs of all sources have the same shape. A training step is one batch of one source, or
    one batch of each, side by side. If source i has n_i rows in B_i batches, an epoch is

    - ``proportional``: every row once, in B_i steps of source i, in random order;
    - ``temperature``: as many steps, where source i has the share n_i^(1/T) / sum_j n_j^(1/T), but
      at least one, in random order: the larger T, the more equal the shares (temperature-scaled
      mixing; Raffel et al., JMLR 2020);
    - ``shares``: the steps of a source have the share that ``shares`` states, in random order; an
      epoch has each row of the source with the largest share once, and a source of share 0 trains
      nothing, but validates and tests;
    - ``round_robin``: the sources in turn, max_i B_i rounds;
    - ``min_cycle``: all sources in each step, min_i B_i steps;
    - ``max_cycle``: all sources in each step, max_i B_i steps.

    A source that runs out of rows within an epoch starts again, in another order. Validation, test
    and prediction read each row of all sources once, one source after the other.

    Args:
        sources: {name: data module}, each with its own batch size.
        sampler: How sources take turns in training.
        temperature: T of the sampler ``temperature``; other samplers have none.
        shares: {source: its share of the steps} of the sampler ``shares``, which sum to 1; a source
            that is not named has what the others leave.
        prefix: Whether each task's name begins with that of its source, for sources that have tasks
            of the same name.
        schema_path: A run's schema.json; the sources must read their columns as that run did.
        eval_batch_size: Rows per evaluation step over all devices, for all sources.
        num_workers: Processes that prepare batches, for all sources.
        seed: Seed of the order of training batches, for all sources.
    """

    def __init__(
        self,
        sources: dict[str, MultiTaskDataModule],
        sampler: Sampler = "proportional",
        temperature: float = 2.0,
        shares: dict[str, float] | None = None,
        prefix: bool = False,
        schema_path: str | None = None,
        eval_batch_size: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        if not sources:
            raise UserError("data.sources is empty; name at least one data module")
        for name, source in sources.items():
            check_source(name, source)
        if not 0 < temperature < float("inf"):
            raise UserError(f"data.temperature is {temperature}; it must be a number above 0")
        if temperature != 2.0 and sampler != "temperature":
            rank_zero_warn(
                f"data.temperature has no effect: data.sampler is {sampler}, not temperature"
            )
        if shares and sampler != "shares":
            rank_zero_warn(f"data.shares has no effect: data.sampler is {sampler}, not shares")

        # a step holds a batch of each source, or of one of them
        sizes = [source.batch_size for source in sources.values()]
        rows_of_a_step = sum(sizes) if sampler in TOGETHER else max(sizes)
        super().__init__(rows_of_a_step, eval_batch_size, num_workers, seed)
        self.sources = sources
        self.sampler = sampler
        self.temperature = temperature
        self.shares = complete_shares(shares or {}, list(sources)) if sampler == "shares" else []
        self.schema_path = schema_path
        self.prefixes = {name: f"{name}-" if prefix else "" for name in sources}

    def prepare_data(self) -> None:
        """Lets each source download what it needs."""
        for source in self.sources.values():
            source.prepare_data()

    def setup(self, stage: str) -> None:
        """Lets each source set up what it needs."""
        for source in self.sources.values():
            source.setup(stage)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks of all sources, one source after the other."""
        # every command asks for the tasks first, so that other files are refused here
        self._compare_schema()
        tasks: dict[str, Task] = {}
        owners: dict[str, str] = {}
        for source, module in self.sources.items():
            for own_name, task in module.tasks.items():
                name = self.prefixes[source] + own_name
                if name in tasks:
                    raise UserError(
                        f"data.sources: {owners[name]} and {source} both have a task '{name}'; "
                        "rename it in one of them, or set data.prefix true"
                    )
                tasks[name] = rename_dependence(task, self.prefixes[source])
                owners[name] = source
        return tasks

    @property
    def input_shape(self) -> InputShape:
        """The shape that the inputs of all sources have."""
        shapes = {name: source.input_shape for name, source in self.sources.items()}
        first, shape = next(iter(shapes.items()))
        for other, another in shapes.items():
            if another != shape:
                raise UserError(
                    f"data.sources: inputs must have one shape, but {first} has {shape} and "
                    f"{other} has {another}"
                )
        self._compare_columns()
        return shape

    def _compare_columns(self) -> None:
        """Refuses tables whose columns differ in meaning: one encoder reads all by position."""
        columns: dict[str, list[tuple[str, Any]]] = {}
        for name, source in self.sources.items():
            inputs = (source.schema() or {}).get("inputs")
            if inputs is not None:
                # how a number is scaled may differ between sources
                columns[name] = [(column["column"], column.get("vocabulary")) for column in inputs]

        # if neighbours agree, all do
        for (one, ours), (other, theirs) in pairwise(columns.items()):
            for (column, words), (another, others) in zip(ours, theirs, strict=True):
                if (column, words) == (another, others):
                    continue
                what = f"read '{column}' and '{another}'"
                if column == another:
                    what = f"have other values in column '{column}'"
                raise UserError(
                    f"data.sources: {one} and {other} {what}; "
                    "one encoder needs the same columns of both"
                )

    def split(self, name: Split) -> MultiSourceDataset:
        """Returns the rows of all sources, one source after the other."""
        splits = [source.split(name) for source in self.sources.values()]
        return MultiSourceDataset(splits, list(self.prefixes.values()), self.tasks)

    def training_batches(self, rows: BatchDataset, shuffle: bool) -> GlobalBatches:
        """Returns the sampler that lets the sources take turns."""
        assert isinstance(rows, MultiSourceDataset)
        shares = self.shares or [1.0] * len(self.sources)
        for name, number, share in zip(self.sources, rows.rows, shares, strict=True):
            if not number and share:
                raise UserError(f"data.sources.{name} has no rows to train on")
        sizes = [source.batch_size for source in self.sources.values()]
        return MultiSourceBatches(
            rows.rows, sizes, self.sampler, self.temperature, shuffle, self.seed, self.shares
        )

    def notes(self) -> list[str]:
        """Returns each source's notes, and the limits of balancing over several sources."""
        notes = []
        for name, source in self.sources.items():
            notes += [f"{name}: {note}" for note in source.notes()]
        if len(self.sources) == 1:
            return notes

        notes.append(
            "each source is split, and its numbers are scaled, by itself: if two sources hold the "
            "same row, it may train in one and test in the other"
        )
        notes.append(
            "rows of one source have labels of its own tasks only: gradients of two sources' tasks "
            "with respect to features are on different rows and are orthogonal, so that balancers "
            "with level features cannot see conflict between sources; "
            "--model.balancer.level parameters can"
        )
        if self.sampler not in TOGETHER:
            notes.append(
                f"sampler {self.sampler}: a step has rows of one source, so that a balancer sees "
                "its tasks alone; --data.sampler max_cycle puts all sources into each step"
            )
        return notes

    def audit(self, thorough: bool = False) -> list[Finding]:
        """Returns the findings on each source, with its name."""
        found = []
        for name, source in self.sources.items():
            found += [one.below(f"sources.{name}") for one in source.audit(thorough)]
        return sort_findings(found)

    def row_info(self, name: Split) -> dict[str, list[Any]]:
        """Returns the names of the rows as 'source/name', and their splits.

        The rows of a source that does not name them are counted from 0.
        """
        ids: list[str] = []
        splits: list[str] = []
        for source, module in self.sources.items():
            info = module.row_info(name)
            rows = len(module.split(name))
            ids += [f"{source}/{row}" for row in info.get("id", range(rows))]
            splits += info.get("split", [""] * rows)
        return {"id": ids, "split": splits} if any(splits) else {"id": ids}

    def check_files(self, all_there: bool = True) -> None:
        self._compare_schema()

    def files(self) -> list[str]:
        return [path for source in self.sources.values() for path in source.files()]

    def fingerprint(self) -> dict[str, Any] | None:
        found = {name: source.fingerprint() for name, source in self.sources.items()}
        return {name: data for name, data in found.items() if data is not None} or None

    def schema(self) -> dict[str, Any] | None:
        """Returns the schemas of the sources that have one, by name."""
        schemas = {name: source.schema() for name, source in self.sources.items()}
        known = {name: schema for name, schema in schemas.items() if schema is not None}
        return {"sources": known} if known else None

    def _compare_schema(self) -> None:
        """Refuses files that would be read in another way than in the run of the schema."""
        if self.schema_path is None:
            return
        try:
            saved = json.loads(Path(self.schema_path).read_text())["sources"]
        except (ValueError, KeyError):
            raise UserError(
                f"{self.schema_path} is damaged: it is no schema of several sources"
            ) from None
        # a source may have read columns as a run did that this one started from
        for name, source in self.sources.items():
            if name in saved:
                source.start_from(self.schema_path, "the run", of=name)
        for name, schema in (self.schema() or {"sources": {}})["sources"].items():
            if remove_paths(schema) != remove_paths(saved.get(name)):
                raise UserError(
                    f"data.sources.{name} has other rows or columns than in the run of "
                    f"{self.schema_path}: a run on several sources is opened on the files that it "
                    "was trained on, not on new or changed ones"
                )


def complete_shares(shares: Mapping[str, float], sources: Sequence[str]) -> list[float]:
    """Returns the share of each source in the steps; one that is not named has what is left.

    Raises:
        UserError: Shares are of no source, or do not sum to 1.
    """
    for name, share in shares.items():
        if name not in sources:
            hint = suggest_or_list(name, sources)
            raise UserError(f"data.shares names '{name}', which is no source; {hint}")
        if not 0 <= share <= 1:
            raise UserError(f"data.shares.{name} is {share}; a share is from 0 to 1")
    left = 1 - sum(shares.values())
    others = [name for name in sources if name not in shares]
    if left < -1e-9 or (left > 1e-9 and not others):
        raise UserError(f"data.shares sum to {1 - left:g}; shares of all sources sum to 1")
    return [shares.get(name, max(left, 0) / max(len(others), 1)) for name in sources]


def check_source(name: str, source: MultiTaskDataModule) -> None:
    """Checks one of several sources, and warns of settings of it that have no effect.

    Raises:
        UserError: Its name has other characters than a task's, or it is a Sources itself.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(
            f"data.sources names '{name}'; a source's name has letters, digits, '-' and '_' alone"
        )
    if isinstance(source, Sources):
        raise UserError(
            f"data.sources.{name} is a Sources itself; name its sources here, beside the others"
        )
    if getattr(source, "augment", None) is not None:
        rank_zero_warn(
            f"data.sources.{name}.augment has no effect: the images of several sources stay as "
            "they are"
        )
    # one loader reads all sources
    for key in ("eval_batch_size", "num_workers"):
        setting = inspect.signature(type(source)).parameters.get(key)
        if setting is not None and getattr(source, key) != setting.default:
            rank_zero_warn(
                f"data.sources.{name}.{key} has no effect: data.{key} holds for all sources"
            )


def remove_paths(schema: Any) -> Any:
    """Returns a source's schema in JSON's types, without the paths of its files.

    The files may have been moved since.
    """
    plain = json.loads(json.dumps(schema))
    for record in (plain or {}).get("files", {}).values():
        del record["path"], record["given"]
    return plain
