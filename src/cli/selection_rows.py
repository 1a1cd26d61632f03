"""Rows in which one column tells nothing: permuted, or put to a constant."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from src.batch import InputShape
from src.cli.loaded_run import Inputs
from src.errors import UserError
from src.models.feature_selection import InputColumn, list_columns
from src.rng import make_generator

# the streams of random numbers under the seed
SAMPLES, PERMUTATIONS = range(2)


@dataclass(frozen=True)
class Constants:
    """The constants that stand for a column in each row.

    Attributes:
        column: The column.
        values: {key of an input: (places,) or (places, H, W), in the order of the column's places}.
    """

    column: InputColumn
    values: Mapping[str, Tensor]

    def put_into(self, inputs: Inputs) -> Inputs:
        """Returns inputs with the constants in the column's places."""
        changed = as_dict(inputs)
        for key, places in find_places(self.column, changed).items():
            own = changed[key].clone()
            if places is None:
                own[:] = self.values[key]
            else:
                own[:, places] = self.values[key]
            changed[key] = own
        return as_given(changed, inputs)


def find_columns(shape: InputShape) -> list[InputColumn]:
    """Returns the columns of a run's inputs.

    Raises:
        UserError: There is one, or none, so that nothing can be compared.
    """
    columns = list_columns(shape)
    if len(columns) < 2 or (not shape.members and len(shape.dense) == 2):
        what = "sequences" if len(shape.dense) == 2 else columns[0].name if columns else "nothing"
        if shape.tokens:
            what = "tokens"
        elif shape.nodes:
            what = "graphs"
        raise UserError(
            f"src.select compares the columns of a table, or the channels of images, but the run "
            f"reads {what}: there is nothing to leave out"
        )
    return columns


def draw_samples(seed: int, rows: int, repeats: int) -> list[np.ndarray]:
    """Draws rows with replacement, as often as there are repeats: the same for every column."""
    generator = make_generator(seed, SAMPLES)
    return [torch.randint(rows, (rows,), generator=generator).numpy() for _ in range(repeats)]


def permute_column(
    inputs: Inputs, column: InputColumn, seed: int, repeats: int
) -> Iterator[Inputs]:
    """Yields inputs in which a column's values went to other rows, all its numbers together.

    Args:
        inputs: The inputs of all rows.
        column: The column.
        seed: The seed; each repeat has a permutation of its own, the same for every column.
        repeats: How many.
    """
    for repeat in range(repeats):
        generator = make_generator(seed, PERMUTATIONS, repeat)
        changed = as_dict(inputs)
        order = torch.randperm(len(next(iter(changed.values()))), generator=generator)
        for key, places in find_places(column, changed).items():
            if places is None:
                changed[key] = changed[key][order]
            else:
                own = changed[key].clone()
                own[:, places] = changed[key][order][:, places]
                changed[key] = own
        yield as_given(changed, inputs)


def read_constants(training: Inputs, column: InputColumn) -> Constants | None:
    """Returns the constants of a column: means of the training rows, and their commonest word.

    A number is as the network reads it, standardised, where a missing one is 0 and has an
    indicator: the mean of both stands for it. An image has the mean image. It is None for texts
    and graphs, which have no mean.

    Args:
        training: The inputs of the training rows.
        column: The column.
    """
    given = as_dict(training)
    values = {}
    for key, places in find_places(column, given).items():
        own = given[key] if places is None else given[key][:, places]
        name = key.rpartition("/")[2]
        if name == "categorical":
            values[key] = own.mode(0).values
        elif name == "dense":
            values[key] = own.double().mean(0).to(own.dtype)
        else:
            return None
    return Constants(column, values)


def find_places(column: InputColumn, inputs: Mapping[str, Tensor]) -> dict[str, list[int] | None]:
    """Returns {key of an input: the column's places in it, None for all}."""
    prefix = f"{column.member}/" if column.member else ""
    if column.whole:
        return {key: None for key in inputs if key.startswith(prefix)}
    found: dict[str, list[int] | None] = {}
    if column.dense:
        found[f"{prefix}dense"] = list(column.dense)
    if column.categories:
        found[f"{prefix}categorical"] = list(column.categories)
    return found


def as_dict(inputs: Inputs) -> dict[str, Tensor]:
    """Returns inputs by key, in a dict of their own."""
    return {"dense": inputs} if isinstance(inputs, Tensor) else dict(inputs)


def as_given(changed: dict[str, Tensor], inputs: Inputs) -> Inputs:
    """Returns changed inputs in the form that the inputs had."""
    return changed["dense"] if isinstance(inputs, Tensor) else changed
