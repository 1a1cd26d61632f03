"""Tasks that come with their own data sets: the rows of several data modules as one stream."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, count
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from src.batch import PADDING, Batch, InputShape
from src.data.datamodule import MultiTaskDataModule, Split
from src.data.stream import GlobalBatches, generator
from src.tasks import MISSING, Task

Sampler = Literal["proportional", "temperature", "round_robin", "min_cycle", "max_cycle"]
TOGETHER = ("min_cycle", "max_cycle")  # a step holds a batch of every source


class Sources(MultiTaskDataModule):
    """Several data modules as one: the tasks of all, on inputs of one shape, each with labels on the rows of its own source.

    A training step is one batch of one source, or one batch of each side by side. With n_i rows in B_i batches of source i, an
    epoch is

    - ``proportional``: every row once, in B_i steps of source i, in random order;
    - ``temperature``: as many steps, of which source i has a share of n_i^(1/T) / sum_j n_j^(1/T), at least one, in random order:
      the larger T, the more equal (temperature-scaled mixing; Raffel et al., JMLR 2020);
    - ``round_robin``: the sources in turn, max_i B_i rounds;
    - ``min_cycle``: all sources in each step, min_i B_i steps;
    - ``max_cycle``: all sources in each step, max_i B_i steps.

    A source that is through before the epoch is begins again, in another order. Validation, test and prediction go through the
    rows of all sources, one source after the other, each row once.

    Args:
        sources: {name: data module}, each with its own batch size.
        sampler: Whose turn it is in training.
        temperature: T of the sampler ``temperature``; the others have none.
        prefix: Let each task's name begin with its source's, where sources have tasks of the same name.
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
            raise ValueError("data.sources is empty; name at least one data module")
        for name, source in sources.items():
            if not re.fullmatch(r"[\w-]+", name):
                raise ValueError(f"data.sources names '{name}'; a source's name has letters, digits, '-' and '_' alone")
            if isinstance(source, Sources):
                raise ValueError(f"data.sources.{name} is a Sources itself; name its sources here, beside the others")
            for key in ("eval_batch_size", "num_workers"):
                setting = inspect.signature(type(source)).parameters.get(key)
                if setting is not None and getattr(source, key) != setting.default:
                    rank_zero_warn(f"data.sources.{name}.{key} has no effect: data.{key} holds for all sources")
        if not 0 < temperature < float("inf"):
            raise ValueError(f"data.temperature is {temperature}; it must be a number above 0")
        if temperature != 2.0 and sampler != "temperature":
            rank_zero_warn(f"data.temperature has no effect: data.sampler is {sampler}, not temperature")
        sizes = [source.batch_size for source in sources.values()]
        super().__init__(sum(sizes) if sampler in TOGETHER else max(sizes), eval_batch_size, num_workers, seed)
        self.sources, self.sampler, self.temperature, self.schema_path = sources, sampler, temperature, schema_path
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
                    raise ValueError(
                        f"data.sources: {owners[name]} and {source} both have a task '{name}'; name it otherwise in one of them, "
                        "or set data.prefix true"
                    )
                tasks[name], owners[name] = task, source
        return tasks

    @property
    def input_shape(self) -> InputShape:
        """The one shape of all sources' inputs."""
        (first, shape), *others = ((name, source.input_shape) for name, source in self.sources.items())
        for other, another in others:
            if another != shape:
                raise ValueError(f"data.sources: inputs must have one shape, but {first} has {shape} and {other} has {another}")
        return shape

    def split(self, name: Split) -> "Joined":
        """Returns the rows of all sources, one source after the other."""
        return Joined([source.split(name) for source in self.sources.values()], list(self.prefixes.values()), self.tasks)

    def training_batches(self, rows: Dataset[Batch], shuffle: bool) -> GlobalBatches:
        """Takes turns between the sources."""
        assert isinstance(rows, Joined)
        for name, number in zip(self.sources, rows.rows, strict=True):
            if not number:
                raise ValueError(f"data.sources.{name} has no rows to train on")
        sizes = [source.batch_size for source in self.sources.values()]
        return SourceBatches(rows.rows, sizes, self.sampler, self.temperature, shuffle, self.seed)

    def notes(self) -> list[str]:
        """Each source's notes, and what a balancer can see of several."""
        notes = [f"{name}: {note}" for name, source in self.sources.items() for note in source.notes()]
        if len(self.sources) > 1:
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

    def sample_ids(self) -> list[str]:
        """Names of the rows to predict, 'source/name'; rows of a source that only counts them are counted from 0."""
        names = {}
        for source, module in self.sources.items():
            ids = module.sample_ids()
            names[source] = range(len(module.split("predict"))) if ids is None else ids  # type: ignore[arg-type]
        return [f"{source}/{name}" for source, ids in names.items() for name in ids]

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
            raise ValueError(f"{self.schema_path} is damaged: it is no schema of several sources") from None
        for name, schema in (self.schema() or {"sources": {}})["sources"].items():
            if json.loads(json.dumps(schema)) != saved.get(name):
                raise ValueError(
                    f"data.sources.{name} reads its columns otherwise than the run of {self.schema_path}: a run on several sources "
                    "is opened on the files that it was trained on, not on new ones"
                )


class SourceBatches(GlobalBatches):
    """Global batches over the rows of several sources that stand behind one another.

    The p-th pass over source i in an epoch has the order of (seed, epoch, i, p), so that a run resumes from (epoch, step) alone.

    Args:
        rows: Number of rows of each source.
        sizes: Size of each source's batches.
        sampler: Whose turn it is, as in :class:`Sources`.
        temperature: As in :class:`Sources`.
        shuffle: Draw new orders each epoch; otherwise rows come in order, and the sources' turns are spread evenly.
        seed: Seed of the orders.
    """

    def __init__(
        self, rows: Sequence[int], sizes: Sequence[int], sampler: Sampler, temperature: float, shuffle: bool, seed: int = 0
    ) -> None:
        super().__init__(sum(rows), max(sizes), shuffle, seed)
        self.sources = list(zip(rows, sizes, accumulate(rows, initial=0), strict=False))  # rows, batch size, first row
        self.sampler = sampler
        batches = [-(-n // size) for n, size, _ in self.sources]
        if sampler == "proportional":
            self.turns = batches
        elif sampler == "temperature":
            self.turns = apportioned(sum(batches), [(n / max(rows)) ** (1 / temperature) for n in rows])
        else:
            self.turns = [min(batches) if sampler == "min_cycle" else max(batches)] * len(rows)

    def __len__(self) -> int:
        return self.turns[0] if self.sampler in TOGETHER else sum(self.turns)

    def batches(self) -> Iterator[Tensor]:
        """Yields the global batches of this epoch: one of one source, or of each source side by side."""
        rest = [self._endless(source, self.epoch) for source in range(len(self.sources))]
        if self.sampler in TOGETHER:
            for _ in range(len(self)):
                yield torch.cat([next(batches) for batches in rest])
        else:
            for source in self._in_turn().tolist():
                yield next(rest[source])

    def _in_turn(self) -> Tensor:
        """The source of each step."""
        sources = torch.arange(len(self.turns)).repeat_interleave(torch.tensor(self.turns))
        if self.shuffle and self.sampler != "round_robin":
            return sources[torch.randperm(len(sources), generator=generator(self.seed, self.epoch))]
        place = torch.cat([(torch.arange(n) + 0.5) / n for n in self.turns])  # of each turn, as a share of the epoch
        return sources[place.argsort(stable=True)]

    def _endless(self, source: int, epoch: int) -> Iterator[Tensor]:
        """The batches of a source, one pass after the other."""
        rows, size, first = self.sources[source]
        for number in count():
            key = (self.seed, epoch, source, number)
            order = torch.randperm(rows, generator=generator(*key)) if self.shuffle else torch.arange(rows)
            yield from (order + first).split(size)


def apportioned(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to ``weights``, by largest remainder, that sum to ``total``; each is at least 1."""
    shares = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(counts)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    while 0 in counts:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(0)] += 1
    return counts


class Joined(Dataset[Batch]):
    """The rows of several sources behind one another: row numbers (B,) -> Batch, in which the rows of a source stand together.

    A row's labels of other sources' tasks are missing; so are extras that its source does not have. Sequences, and the labels of
    their tokens, are filled up to the longest. All this is done for the rows of a batch, when they are asked for.

    Args:
        parts: A split of each source.
        prefixes: What the names of each source's tasks begin with here.
        tasks: {name here: task}.
    """

    def __init__(self, parts: Sequence[Dataset[Batch]], prefixes: Sequence[str], tasks: Mapping[str, Task]) -> None:
        self.parts, self.rows = parts, [len(part) for part in parts]  # type: ignore[arg-type]
        *self.starts, _ = ends = list(accumulate(self.rows, initial=0))
        self.ends = torch.tensor(ends[1:])
        examples = [part[torch.full((min(n, 1),), PADDING)] for part, n in zip(parts, self.rows, strict=True)]
        inputs = [by_key(example) for example in examples]
        self.inputs = {key: behind([one[key] for one in inputs], [len(e) for e in examples], x, 0) for key, x in inputs[0].items()}
        self.extras = {name: extra for example in examples for name, extra in example.extras.items()}
        self.targets = {  # {name here: part, name there, how it looks, whether tokens have a label each}
            (here := prefix + name): (i, name, target, "tokens" in self.inputs and target.ndim > 1 + tasks[here].event_dims)
            for i, (example, prefix) in enumerate(zip(examples, prefixes, strict=True))
            for name, target in example.targets.items()
        }

    def __len__(self) -> int:
        return sum(self.rows)

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows ``ids``, grouped by source; ``PADDING`` stays at the end."""
        padded = int(ids[-1]) == PADDING
        part = torch.bucketize(ids.clamp(min=0) if padded else ids, self.ends, right=True)
        if padded:
            part[ids == PADDING] = part.max()
        numbers = part.bincount(minlength=len(self.parts)).tolist()
        if max(numbers) < len(ids):
            ids = ids[part.argsort(stable=True)]
        found = {}
        for i, (rows, start, number) in enumerate(zip(ids.split(numbers), self.starts, numbers, strict=True)):
            if number:
                found[i] = self.parts[i][torch.where(rows == PADDING, PADDING, rows - start) if padded else rows - start]
        sizes = [n for n in numbers if n]
        inputs = {key: behind([by_key(b)[key] for b in found.values()], sizes, x, 0) for key, x in self.inputs.items()}
        targets = {}
        for here, (i, name, example, by_token) in self.targets.items():
            if by_token:
                example = example.new_empty(0, inputs["tokens"].shape[1], *example.shape[2:])
            targets[here] = behind([b.targets[name] if j == i else None for j, b in found.items()], sizes, example)
        extras = {name: behind([b.extras.get(name) for b in found.values()], sizes, x) for name, x in self.extras.items()}
        return Batch(inputs.get("", inputs), targets, ids, extras)


def by_key(batch: Batch) -> dict[str, Tensor]:
    """The inputs as a dict."""
    return batch.inputs if isinstance(batch.inputs, dict) else {"": batch.inputs}


def behind(pieces: Sequence[Tensor | None], numbers: Sequence[int], example: Tensor, fill: float | None = None) -> Tensor:
    """Tensors behind one another, filled up to the size of the largest.

    Args:
        pieces: The tensors; None where there is none.
        numbers: Rows of each.
        example: Its type, and at least its size beyond rows, is the result's.
        fill: What is filled in; None: missing labels.
    """
    shape = example.shape[1:]
    for piece in pieces:
        if piece is not None and piece.shape[1:] != shape:
            shape = torch.Size(map(max, shape, piece.shape[1:]))
    if len(pieces) == 1 and pieces[0] is not None and pieces[0].shape[1:] == shape:
        return pieces[0]
    if fill is None:
        fill = float("nan") if example.is_floating_point() else MISSING
    whole = example.new_full((sum(numbers), *shape), fill)
    for piece, end, number in zip(pieces, accumulate(numbers), numbers, strict=True):
        if piece is not None:
            whole[end - number : end][tuple(map(slice, piece.shape))] = piece
    return whole
