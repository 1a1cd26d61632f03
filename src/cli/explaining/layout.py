"""The features of a run's inputs, in the data's own words, and the baselines of its rows."""

from collections.abc import Mapping
from math import ceil

import torch
from torch import Tensor

from src.analysis.explanations.path import EMPTY, SEQUENCES, Features, Inputs
from src.batch import InputShape, inputs_of
from src.cli.selection_rows import as_dict
from src.errors import UserError
from src.models.feature_selection import list_columns

PATCHES = 14  # along each side of an image, where each is changed by itself


def list_features(shape: InputShape, inputs: Inputs, coarse: bool) -> Features:
    """Lists the features of inputs, and where each lies.

    A column of a table is one feature: a number with the indicator of its missing values, the parts
    of a date, a category. A pixel is one with all its channels, a token with its pieces, a step of
    a sequence with all its numbers.

    Args:
        shape: The shape of a sample.
        inputs: The rows.
        coarse: Whether to take patches of an image in place of pixels, for methods that change one
            feature after the other.

    Raises:
        UserError: The inputs are graphs.
    """
    members = shape.members or (("", shape),)
    if any(own.nodes for _, own in members):
        raise UserError(
            "src.explain has no attributions for graphs, whose nodes and edges have no baseline"
        )
    names: list[str] = []
    columns: list[str] = []
    column_of: list[int] = []
    places: dict[str, Tensor] = {}
    given = as_dict(inputs)
    for member, own in members:
        prefix = f"{member}/" if member else ""
        values = inputs_of(member, given) if member else inputs
        first = len(names)
        found, own_places, own_columns = list_member(own, member, values, coarse)
        names += [name for name, _ in found]
        column_of += [len(columns) + column for _, column in found]
        columns += own_columns
        places |= {f"{prefix}{key}": first + place for key, place in own_places.items()}
    return Features(tuple(names), tuple(columns), torch.tensor(column_of), places)


def list_member(
    shape: InputShape, member: str, inputs: Inputs, coarse: bool
) -> tuple[list[tuple[str, int]], dict[str, Tensor], list[str]]:
    """Lists the features of one input.

    Returns:
        (name, number of its column) of each, {key: the feature of each place}, and the columns.
    """
    if shape.tokens:
        tokens = as_dict(inputs)["tokens"]
        features = [(f"token {k + 1}", 0) for k in range(tokens.shape[1])]
        places = {"tokens": torch.arange(tokens.shape[1])}
        if shape.parts:
            places["parts"] = places["tokens"][:, None]
        return features, places, [member or "text"]
    if len(shape.dense) == 2:
        steps = torch.arange(shape.dense[0])
        names = [f"step {k + 1}" for k in range(len(steps))]
        if member:
            return [(name, 0) for name in names], {"dense": steps[:, None]}, [member]
        return list(zip(names, range(len(names)), strict=True)), {"dense": steps[:, None]}, names
    if len(shape.dense) == 3:
        _, height, width = shape.dense
        place = number_pixels(height, width, coarse)
        word = "patch" if int(place.max()) + 1 < height * width else "pixel"
        features = [(f"{word} {k + 1}", 0) for k in range(int(place.max()) + 1)]
        return features, {"dense": place[None]}, [member or "image"]

    own_columns = list_columns(shape, member)
    # a table may have numbers or categories alone: the others are there, with no column
    places = {}
    for key, values in as_dict(inputs).items():
        places[key] = torch.zeros(values.shape[1], dtype=torch.long)
    for number, column in enumerate(own_columns):
        for key, own in (("dense", column.dense), ("categorical", column.categories)):
            if own:
                places[key][list(own)] = number
    names = [column.name for column in own_columns]
    return [(name, k) for k, name in enumerate(names)], places, names


def number_pixels(height: int, width: int, coarse: bool) -> Tensor:
    """Returns the feature (H, W) of each pixel: its own, or that of a patch."""
    size = max(1, ceil(max(height, width) / PATCHES)) if coarse else 1
    across = ceil(width / size)
    rows = torch.arange(height)[:, None] // size
    return rows * across + torch.arange(width)[None] // size


def make_baseline(kind: str, training: Inputs) -> dict[str, Tensor]:
    """Returns the baseline of all rows, {key: (1, ...)}.

    Args:
        kind: mean: the means of the training rows, and their commonest words; zero: 0 where mean
            has means.
        training: The training rows.
    """
    found: dict[str, Tensor] = {}
    for key, values in as_dict(training).items():
        name = key.rpartition("/")[2]
        if name in SEQUENCES:
            found[key] = torch.full((1, *(1 for _ in values.shape[1:])), EMPTY)
        elif name == "categorical":
            found[key] = values.mode(0).values[None]
        elif kind == "zero":
            found[key] = torch.zeros_like(values[:1])
        else:
            found[key] = values.double().mean(0, keepdim=True).to(values.dtype)
    return found


def take_baselines(training: Inputs) -> dict[str, Tensor]:
    """Returns training rows as baselines, {key: (K, ...)}; the baseline of a token is no word."""
    found: dict[str, Tensor] = {}
    for key, values in as_dict(training).items():
        if key.rpartition("/")[2] in SEQUENCES:
            found[key] = torch.full((len(values), *(1 for _ in values.shape[1:])), EMPTY)
        else:
            found[key] = values
    return found


def describe_baseline(kind: str, shape: InputShape) -> str:
    """Says what the baseline of rows is, in a few words."""
    words: list[str] = []
    for _, own in shape.members or (("", shape),):
        if own.tokens:
            words.append("no word at each token (an embedding of zeros, as at padding)")
        elif len(own.dense) > 1:
            mean = "the mean image" if len(own.dense) == 3 else "the mean of each step"
            words.append(mean if kind == "mean" else "zeros, as the network reads them")
        else:
            numbers = "the training mean" if kind == "mean" else "0 as the network reads it"
            if own.dense:
                words.append(f"{numbers} of each number and of its missing values")
            if own.categories:
                words.append("the commonest word of each category")
    return "; ".join(dict.fromkeys(words))


def read_numbers(features: Features, inputs: Mapping[str, Tensor]) -> Tensor:
    """Returns the numbers (N, columns) of columns of a table, NaN in other columns.

    They are as the network reads them, standardised, which no correlation sees.
    """
    rows = len(next(iter(inputs.values())))
    found = torch.full((rows, len(features.columns)), float("nan"), dtype=torch.float64)
    for key, places in features.places.items():
        values = inputs[key]
        if key.rpartition("/")[2] != "dense" or values.ndim != 2:
            continue
        # the first place of a column is its number, the next one tells that it is missing
        for place in reversed(range(len(places))):
            found[:, features.column_of[places[place]]] = values[:, place].double()
    return found
