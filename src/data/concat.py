"""The rows of several sources as one data set."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.batch import PADDING, Batch
from src.tasks import MISSING, Task


class Joined(Dataset[Batch]):
    """The rows of several sources behind one another: row numbers (B,) -> Batch, in which the rows of a source stand together.

    A row's labels of other sources' tasks are missing; so are extras that its source does not have.
    Sequences, and the labels of their tokens, are filled up to the longest. All this is done for
    the rows of a batch, when they are asked for.

    Args:
        parts: A split of each source.
        prefixes: What the names of each source's tasks begin with here.
        tasks: {name here: task}.
    """

    def __init__(
        self, parts: Sequence[Dataset[Batch]], prefixes: Sequence[str], tasks: Mapping[str, Task]
    ) -> None:
        self.parts, self.rows = parts, [len(part) for part in parts]  # type: ignore[arg-type]
        *self.starts, _ = ends = list(accumulate(self.rows, initial=0))
        self.ends = torch.tensor(ends[1:])
        examples = [
            part[torch.full((min(n, 1),), PADDING)]
            for part, n in zip(parts, self.rows, strict=True)
        ]
        inputs = [by_key(example) for example in examples]
        self.inputs = {
            key: behind([one[key] for one in inputs], [len(e) for e in examples], x, 0)
            for key, x in inputs[0].items()
        }
        self.extras = {
            name: extra for example in examples for name, extra in example.extras.items()
        }
        # {name here: part, name there, how it looks, whether tokens have a label each}
        self.targets = {
            (here := prefix + name): (
                i,
                name,
                target,
                "tokens" in self.inputs and target.ndim > 1 + tasks[here].event_dims,
            )
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
        for i, (rows, start, number) in enumerate(
            zip(ids.split(numbers), self.starts, numbers, strict=True)
        ):
            if number:
                found[i] = self.parts[i][
                    torch.where(rows == PADDING, PADDING, rows - start) if padded else rows - start
                ]
        sizes = [n for n in numbers if n]
        inputs = {
            key: behind([by_key(b)[key] for b in found.values()], sizes, x, 0)
            for key, x in self.inputs.items()
        }
        targets = {}
        for here, (i, name, example, by_token) in self.targets.items():
            if by_token:
                example = example.new_empty(0, inputs["tokens"].shape[1], *example.shape[2:])
            targets[here] = behind(
                [b.targets[name] if j == i else None for j, b in found.items()], sizes, example
            )
        extras = {
            name: behind([b.extras.get(name) for b in found.values()], sizes, x)
            for name, x in self.extras.items()
        }
        return Batch(inputs.get("", inputs), targets, ids, extras)


def by_key(batch: Batch) -> dict[str, Tensor]:
    """The inputs as a dict."""
    return batch.inputs if isinstance(batch.inputs, dict) else {"": batch.inputs}


def behind(
    pieces: Sequence[Tensor | None],
    numbers: Sequence[int],
    example: Tensor,
    fill: float | None = None,
) -> Tensor:
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
