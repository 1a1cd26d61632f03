"""The parts of a sample, as corruptions see them, with what training rows say of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from src.batch import InputShape

Inputs = Tensor | dict[str, Tensor]
Kind = Literal["table", "image", "text", "graph", "sequence"]


@dataclass(frozen=True)
class PartColumn:
    """A column of a table, and where the inputs hold it.

    Attributes:
        name: Its name.
        numbers: The places of its numbers in the dense input.
        indicators: The places that say whether a value is missing.
        category: Its place among the categorical columns; None where it is a number.
        missing_code: The code of a missing category; 0 is the code of words that are not known.
        words: The word of each code from 1 on; empty where codes have none.
        units: Mean and standard deviation by which each number was standardised; empty where they
            are as the data have them.
    """

    name: str
    numbers: tuple[int, ...] = ()
    indicators: tuple[int, ...] = ()
    category: int | None = None
    missing_code: int = 0
    words: tuple[str | None, ...] = ()
    units: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class TrainingValues:
    """The spread of the dense input in the training rows, and their categories.

    Attributes:
        mean: The mean of each feature (F,), or of each channel (C, 1, 1); missing values left out.
        std: Their standard deviation.
        low: Their least value.
        high: Their greatest value.
        codes: (N, C) The categories of the training rows; empty where there are none.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    codes: Tensor


@dataclass(frozen=True)
class Part:
    """One of the inputs of a sample.

    Attributes:
        name: Its name; "" where a sample has one input.
        kind: What it is.
        shape: Its shape.
        columns: The columns of a table.
        has_missing: Whether the data know missing values: a missing number is then 0. Elsewhere the
            mean of the training rows stands for it.
        words: The word of each token of a text from 1 on; empty where nobody knows them.
        special: Whether the first and the last token of a text are of the tokenizer, as [CLS] is.
        training: The values of training rows; None for texts and graphs.
    """

    name: str
    kind: Kind
    shape: InputShape
    columns: tuple[PartColumn, ...] = ()
    has_missing: bool = False
    words: tuple[str | None, ...] = ()
    special: bool = False
    training: TrainingValues | None = field(default=None, compare=False, repr=False)

    @property
    def number_places(self) -> list[int]:
        """The places of all numbers of a table, without the indicators of missing values."""
        return [place for column in self.columns for place in column.numbers]

    @property
    def learnt(self) -> TrainingValues:
        """The values of training rows, of a part that has a dense input or categories."""
        assert self.training is not None
        return self.training

    def read(self, inputs: Inputs) -> dict[str, Tensor]:
        """Returns the tensors of the part by their key: dense, categorical, tokens ..."""
        if isinstance(inputs, Tensor):
            return {"dense": inputs}
        prefix = f"{self.name}/" if self.name else ""
        own = {}
        for key, values in inputs.items():
            if key.startswith(prefix):
                own[key.removeprefix(prefix)] = values
        return own

    def write(self, inputs: Inputs, own: Mapping[str, Tensor]) -> Inputs:
        """Returns inputs in which tensors of the part are replaced."""
        if isinstance(inputs, Tensor):
            return own["dense"]
        prefix = f"{self.name}/" if self.name else ""
        return inputs | {f"{prefix}{key}": values for key, values in own.items()}

    def find_missing(self, dense_BF: Tensor) -> Tensor:
        """Returns which numbers of a table are missing, bool (B, F); False at the indicators."""
        missing = torch.zeros_like(dense_BF, dtype=torch.bool)
        for column in self.columns:
            for place, indicator in zip(column.numbers, column.indicators, strict=False):
                missing[:, place] = dense_BF[:, indicator] > 0
        return missing


def find_kind(shape: InputShape) -> Kind:
    """Returns the kind of one input."""
    if shape.tokens:
        return "text"
    if shape.nodes:
        return "graph"
    ranks: dict[int, Kind] = {2: "sequence", 3: "image"}
    return ranks.get(len(shape.dense), "table")


def measure_training(part: Part, inputs: Inputs) -> TrainingValues | None:
    """Returns what training rows say of a part; None for texts and graphs.

    Args:
        part: The part.
        inputs: The inputs of training rows.
    """
    own = part.read(inputs)
    if "dense" not in own:
        return None
    dense = own["dense"].double()
    if part.kind == "table":
        dense = dense.masked_fill(part.find_missing(dense), torch.nan)
        flat_NF = dense
        sides: tuple[int, ...] = ()
    else:
        # channels come first in images, and last in sequences
        axis = 1 if part.kind == "image" else -1
        flat_NF = dense.movedim(axis, -1).flatten(0, -2)
        sides = (1, 1) if part.kind == "image" else ()

    known = ~flat_NF.isnan()
    count = known.sum(0).clamp(min=1)
    mean = flat_NF.nan_to_num().sum(0) / count
    spread = ((flat_NF - mean) ** 2).nan_to_num().sum(0) / count
    low = flat_NF.nan_to_num(torch.inf).amin(0)
    high = flat_NF.nan_to_num(-torch.inf).amax(0)
    empty = known.sum(0) == 0
    codes = own.get("categorical", torch.zeros(len(dense), 0, dtype=torch.long))
    return TrainingValues(
        mean.view(-1, *sides),
        spread.sqrt().view(-1, *sides),
        low.masked_fill(empty, 0).view(-1, *sides),
        high.masked_fill(empty, 0).view(-1, *sides),
        codes,
    )


def split_parts(shape: InputShape) -> Sequence[tuple[str, InputShape]]:
    """Returns the name and the shape of each input of a sample; the name is "" where it is one."""
    return shape.members or (("", shape),)
