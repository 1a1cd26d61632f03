"""The rows of several sources as one data set."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from src.batch import PADDING, Batch
from src.data.rows import BatchDataset
from src.tasks import MISSING, Task


class TargetOfSource(NamedTuple):
    """Where the labels of a task come from.

    Attributes:
        source: Position of its source.
        name: The task's name in that source.
        example: Labels of one row, for their type and shape.
        by_token: Whether each token has a label of its own.
    """

    source: int
    name: str
    example: Tensor
    by_token: bool


class MultiSourceDataset(BatchDataset):
    """The rows of several sources, numbered one source after the other.

    In a batch, the rows of each source are next to each other. For
    tasks of other sources, the labels of a row are missing; so are extras that its source does not
    have. Sequences, and the labels of their tokens, are padded to the longest in the batch.

    Args:
        sources: The same split of each source.
        prefixes: What the names of each source's tasks begin with here.
        tasks: {name here: task}.
    """

    def __init__(
        self, sources: Sequence[BatchDataset], prefixes: Sequence[str], tasks: Mapping[str, Task]
    ) -> None:
        self.sources = sources
        self.rows = [len(source) for source in sources]
        bounds = list(accumulate(self.rows, initial=0))
        self.starts = bounds[:-1]
        self.ends = torch.tensor(bounds[1:])

        # one row of each source, or none, shows the types and shapes
        examples = []
        for source, n in zip(sources, self.rows, strict=True):
            examples.append(source[torch.full((min(n, 1),), PADDING)])
        inputs = [name_inputs(example) for example in examples]
        numbers = [len(example) for example in examples]
        self.inputs = {
            key: concatenate([one[key] for one in inputs], numbers, x, 0)
            for key, x in inputs[0].items()
        }
        self.extras: dict[str, Tensor] = {}
        self.weights: dict[str, tuple[int, str]] = {}  # the source of each, and its name there
        self.targets: dict[str, TargetOfSource] = {}
        for i, (example, prefix) in enumerate(zip(examples, prefixes, strict=True)):
            self.extras |= example.extras
            for name, target in example.targets.items():
                here = prefix + name
                by_token = "tokens" in self.inputs and target.ndim > 1 + tasks[here].event_dims
                self.targets[here] = TargetOfSource(i, name, target, by_token)
                if name in example.weights:
                    self.weights[here] = i, name

    def __len__(self) -> int:
        return sum(self.rows)

    def __getitem__(self, ids: Tensor) -> Batch:
        """Returns the rows ``ids``, grouped by source; ``PADDING`` stays at the end."""
        has_padding = int(ids[-1]) == PADDING
        source = torch.bucketize(ids.clamp(min=0) if has_padding else ids, self.ends, right=True)
        if has_padding:
            source[ids == PADDING] = source.max()
        numbers = source.bincount(minlength=len(self.sources)).tolist()

        # rows of a single source are grouped already
        if max(numbers) < len(ids):
            ids = ids[source.argsort(stable=True)]
        batches = self._batch_of_each(ids, numbers, has_padding)
        sizes = [n for n in numbers if n]

        inputs = {
            key: concatenate([name_inputs(b)[key] for b in batches.values()], sizes, x, 0)
            for key, x in self.inputs.items()
        }
        targets = {}
        for here, (owner, name, example, by_token) in self.targets.items():
            # labels of tokens are as long as the tokens, also in rows of other sources
            if by_token:
                example = example.new_empty(0, inputs["tokens"].shape[1], *example.shape[2:])
            labels = [b.targets[name] if i == owner else None for i, b in batches.items()]
            targets[here] = concatenate(labels, sizes, example)
        extras = {
            name: concatenate([b.extras.get(name) for b in batches.values()], sizes, x)
            for name, x in self.extras.items()
        }
        # rows of other sources have no label of the task, and weight 0
        weights = {}
        for here, (owner, name) in self.weights.items():
            own = [b.weights[name] if i == owner else None for i, b in batches.items()]
            weights[here] = concatenate(own, sizes, torch.empty(0), 0)
        return Batch(inputs.get("", inputs), targets, ids, extras, weights)

    def _batch_of_each(
        self, ids: Tensor, numbers: Sequence[int], has_padding: bool
    ) -> dict[int, Batch]:
        """Returns a batch of each source that has rows among the grouped ``ids``."""
        batches = {}
        for i, rows in enumerate(ids.split(list(numbers))):
            if not numbers[i]:
                continue
            own = rows - self.starts[i]
            if has_padding:
                own = torch.where(rows == PADDING, PADDING, own)
            batches[i] = self.sources[i][own]
        return batches


def name_inputs(batch: Batch) -> dict[str, Tensor]:
    """Returns the inputs as a dict; a single tensor has the name ''."""
    return batch.inputs if isinstance(batch.inputs, dict) else {"": batch.inputs}


def concatenate(
    pieces: Sequence[Tensor | None],
    numbers: Sequence[int],
    example: Tensor,
    fill: float | None = None,
) -> Tensor:
    """Concatenates tensors along the rows, and pads them to the size of the largest.

    Args:
        pieces: The tensors; None where all values are missing.
        numbers: Number of rows of each.
        example: A tensor with the type of the result, and with its least size beyond the rows.
        fill: The value of padding; None for missing labels.
    """
    # the largest size in each dimension
    shape = example.shape[1:]
    for piece in pieces:
        if piece is not None and piece.shape[1:] != shape:
            shape = torch.Size(map(max, shape, piece.shape[1:]))

    # a single piece of the right size is returned without a copy
    if len(pieces) == 1 and pieces[0] is not None and pieces[0].shape[1:] == shape:
        return pieces[0]
    if fill is None:
        fill = float("nan") if example.is_floating_point() else MISSING
    whole = example.new_full((sum(numbers), *shape), fill)
    for piece, end, number in zip(pieces, accumulate(numbers), numbers, strict=True):
        if piece is not None:
            whole[end - number : end][tuple(map(slice, piece.shape))] = piece
    return whole
