"""Tasks that come with their own data sets: the rows of several data modules as one stream."""

import inspect
import json
import re
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_warn
from torch.utils.data import Dataset

from src.batch import Batch, InputShape
from src.data.concat import Joined
from src.data.datamodule import MultiTaskDataModule, Split
from src.data.multi_source_sampler import TOGETHER, Sampler, SourceBatches
from src.data.stream import GlobalBatches
from src.errors import UserError
from src.tasks import Task


class Sources(MultiTaskDataModule):
    """Several data modules as one: the tasks of all, on inputs of one shape, each with labels on the rows of its own source.

    A training step is one batch of one source, or one batch of each side by side. With n_i rows in
    B_i batches of source i, an epoch is

    - ``proportional``: every row once, in B_i steps of source i, in random order;
    - ``temperature``: as many steps, of which source i has a share of n_i^(1/T) / sum_j n_j^(1/T),
      at least one, in random order: the larger T, the more equal (temperature-scaled mixing; Raffel
      et al., JMLR 2020);
    - ``round_robin``: the sources in turn, max_i B_i rounds;
    - ``min_cycle``: all sources in each step, min_i B_i steps;
    - ``max_cycle``: all sources in each step, max_i B_i steps.

    A source that is through before the epoch is begins again, in another order. Validation, test
    and prediction go through the rows of all sources, one source after the other, each row once.

    Args:
        sources: {name: data module}, each with its own batch size.
        sampler: Whose turn it is in training.
        temperature: T of the sampler ``temperature``; the others have none.
        prefix: Let each task's name begin with its source's, where sources have tasks of the same
            name.
        schema_path: A run's schema.json: the sources must read their columns as that run did.
        eval_batch_size: Rows per evaluation step over all devices, for all sources.
        num_workers: Processes that prepare batches, for all sources.
        seed: Seed of the order of training batches, for all sources.
    """

    def __init__(
        self,
        sources: dict[str, MultiTaskDataModule],
        sampler: Sampler = "proportional",
        temperature: float = 2.0,
        prefix: bool = False,
        schema_path: str | None = None,
        eval_batch_size: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        if not sources:
            raise UserError("data.sources is empty; name at least one data module")
        for name, source in sources.items():
            if not re.fullmatch(r"[\w-]+", name):
                raise UserError(
                    f"data.sources names '{name}'; a source's name has letters, digits, '-' and '_' alone"
                )
            if isinstance(source, Sources):
                raise UserError(
                    f"data.sources.{name} is a Sources itself; name its sources here, beside the others"
                )
            for key in ("eval_batch_size", "num_workers"):
                setting = inspect.signature(type(source)).parameters.get(key)
                if setting is not None and getattr(source, key) != setting.default:
                    rank_zero_warn(
                        f"data.sources.{name}.{key} has no effect: data.{key} holds for all sources"
                    )
        if not 0 < temperature < float("inf"):
            raise UserError(f"data.temperature is {temperature}; it must be a number above 0")
        if temperature != 2.0 and sampler != "temperature":
            rank_zero_warn(
                f"data.temperature has no effect: data.sampler is {sampler}, not temperature"
            )
        sizes = [source.batch_size for source in sources.values()]
        super().__init__(
            sum(sizes) if sampler in TOGETHER else max(sizes), eval_batch_size, num_workers, seed
        )
        self.sources, self.sampler, self.temperature, self.schema_path = (
            sources,
            sampler,
            temperature,
            schema_path,
        )
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
        self._compare_schema()
        tasks: dict[str, Task] = {}
        owners: dict[str, str] = {}
        for source, module in self.sources.items():
            for name, task in module.tasks.items():
                name = self.prefixes[source] + name
                if name in tasks:
                    raise UserError(
                        f"data.sources: {owners[name]} and {source} both have a task '{name}'; name it otherwise in one of them, "
                        "or set data.prefix true"
                    )
                tasks[name], owners[name] = task, source
        return tasks

    @property
    def input_shape(self) -> InputShape:
        """The one shape of all sources' inputs."""
        (first, shape), *others = (
            (name, source.input_shape) for name, source in self.sources.items()
        )
        for other, another in others:
            if another != shape:
                raise UserError(
                    f"data.sources: inputs must have one shape, but {first} has {shape} and {other} has {another}"
                )
        self._compare_columns()
        return shape

    def _compare_columns(self) -> None:
        """Refuses tables whose columns mean different things: one encoder reads all of them by their place."""
        read = {}
        for name, source in self.sources.items():
            inputs = (source.schema() or {}).get("inputs")
            if inputs is not None:  # how a number is scaled is each source's own
                read[name] = [(column["column"], column.get("vocabulary")) for column in inputs]
        for (one, ours), (other, theirs) in pairwise(read.items()):
            for (column, words), (another, others) in zip(ours, theirs, strict=True):
                if (column, words) != (another, others):
                    what = (
                        f"have other values in column '{column}'"
                        if column == another
                        else f"read '{column}' and '{another}'"
                    )
                    raise UserError(
                        f"data.sources: {one} and {other} {what}; one encoder needs the same columns of both"
                    )

    def split(self, name: Split) -> "Joined":
        """Returns the rows of all sources, one source after the other."""
        return Joined(
            [source.split(name) for source in self.sources.values()],
            list(self.prefixes.values()),
            self.tasks,
        )

    def training_batches(self, rows: Dataset[Batch], shuffle: bool) -> GlobalBatches:
        """Takes turns between the sources."""
        assert isinstance(rows, Joined)
        for name, number in zip(self.sources, rows.rows, strict=True):
            if not number:
                raise UserError(f"data.sources.{name} has no rows to train on")
        sizes = [source.batch_size for source in self.sources.values()]
        return SourceBatches(rows.rows, sizes, self.sampler, self.temperature, shuffle, self.seed)

    def notes(self) -> list[str]:
        """Each source's notes, and what a balancer can see of several."""
        notes = [
            f"{name}: {note}" for name, source in self.sources.items() for note in source.notes()
        ]
        if len(self.sources) > 1:
            notes.append(
                "each source is split, and its numbers are scaled, by itself: a row that two of them hold may train one and test "
                "the other"
            )
            notes.append(
                "rows of one source have labels of its own tasks only: gradients of two sources' tasks with respect to features "
                "lie on different rows and are orthogonal, so that balancers with level features cannot see conflict between "
                "sources; --model.balancer.level parameters can"
            )
            if self.sampler not in TOGETHER:
                notes.append(
                    f"sampler {self.sampler}: a step has rows of one source, so that a balancer sees its tasks alone; "
                    "--data.sampler max_cycle puts all sources into each step"
                )
        return notes

    def beside(self, name: Split) -> dict[str, list[Any]]:
        """Names the rows 'source/name', where rows of a source that only counts them are counted from 0, and their splits."""
        found = {source: module.beside(name) for source, module in self.sources.items()}
        rows = {source: len(module.split(name)) for source, module in self.sources.items()}  # type: ignore[arg-type]
        ids = [
            f"{source}/{row}"
            for source, part in found.items()
            for row in part.get("id", range(rows[source]))
        ]
        splits = [
            side
            for source, part in found.items()
            for side in part.get("split", [""] * rows[source])
        ]
        return {"id": ids, "split": splits} if any(splits) else {"id": ids}

    def check_files(self, all_there: bool = True) -> None:
        """Looks at each source's files."""
        self._compare_schema()

    def files(self) -> list[str]:
        return [path for source in self.sources.values() for path in source.files()]

    def fingerprint(self) -> dict[str, Any] | None:
        found = {name: source.fingerprint() for name, source in self.sources.items()}
        return {name: data for name, data in found.items() if data is not None} or None

    def schema(self) -> dict[str, Any] | None:
        """The schemas of the sources that have one, by name."""
        schemas = {name: source.schema() for name, source in self.sources.items()}
        known = {name: schema for name, schema in schemas.items() if schema is not None}
        return {"sources": known} if known else None

    def _compare_schema(self) -> None:
        """Refuses files that would be read otherwise than those that the run was trained on."""
        if self.schema_path is None:
            return
        try:
            saved = json.loads(Path(self.schema_path).read_text())["sources"]
        except (ValueError, KeyError):
            raise UserError(
                f"{self.schema_path} is damaged: it is no schema of several sources"
            ) from None
        for name, schema in (self.schema() or {"sources": {}})["sources"].items():
            if without_places(schema) != without_places(saved.get(name)):
                raise UserError(
                    f"data.sources.{name} has other rows or columns than in the run of {self.schema_path}: a run on several "
                    "sources is opened on the files that it was trained on, not on new or changed ones"
                )


def without_places(schema: Any) -> Any:
    """A source's schema as JSON has it, without the folders in which its files lie: they may have been moved since."""
    plain = json.loads(json.dumps(schema))
    for record in (plain or {}).get("files", {}).values():
        del record["path"], record["given"]
    return plain
