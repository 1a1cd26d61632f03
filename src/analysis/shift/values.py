"""The values of rows, column by column, as shift compares them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.analysis.robustness.parts import Inputs, Part
from src.tasks import Task

LEAST_COUNT = 10  # words that are rarer in both samples together are one
FREQUENT = 30  # tokens whose shares a classifier sees
GRID = 8  # pixels of a side of the images that a classifier sees
UNKNOWN = 1  # the highest code of a token that stands for no word of its own


@dataclass(frozen=True)
class ColumnValues:
    """The values of a column.

    Attributes:
        name: Its name.
        values: (N,) numbers, NaN where missing; or codes of categories, 0 for words that training
            did not have.
        is_category: Whether they are codes.
        words: The word of each code, from 1 on; empty where codes have none.
        unit: Mean and standard deviation by which numbers were standardised.
        missing_code: The code of a missing category; None for none.
        by_row: Whether there is one value for each row; tokens are many.
    """

    name: str
    values: np.ndarray
    is_category: bool = False
    words: tuple[str | None, ...] = ()
    unit: tuple[float, float] = (0.0, 1.0)
    missing_code: int | None = None
    by_row: bool = field(default=True)


def list_values(parts: Sequence[Part], inputs: Inputs) -> list[ColumnValues]:
    """Returns the values of all columns of rows; images, texts and graphs by what sums them up."""
    found: list[ColumnValues] = []
    for part in parts:
        own = part.read(inputs)
        summarise = {
            "table": list_table,
            "image": list_image,
            "sequence": list_sequence,
            "text": list_text,
            "graph": list_graph,
        }[part.kind]
        found += summarise(part, own)
    return found


def list_table(part: Part, own: dict[str, Tensor]) -> list[ColumnValues]:
    """Returns the columns of a table."""
    found = []
    dense = own["dense"].double()
    dense = dense.masked_fill(part.find_missing(dense), torch.nan)
    for column in part.columns:
        for number, place in enumerate(column.numbers):
            several = len(column.numbers) > 1
            name = f"{column.name} {number + 1}" if several else column.name
            unit = column.units[number] if column.units else (0.0, 1.0)
            found.append(ColumnValues(name, dense[:, place].numpy(), unit=unit))
        if column.category is not None:
            codes = own["categorical"][:, column.category].numpy()
            missing = column.missing_code or None
            found.append(ColumnValues(column.name, codes, True, column.words, (0, 1), missing))
    return found


def list_image(part: Part, own: dict[str, Tensor]) -> list[ColumnValues]:
    """Returns the mean and the spread of the pixels of each channel."""
    pixels = own["dense"].double().flatten(2)
    return list_moments(name_part(part, "channel"), pixels.mean(2), pixels.std(2))


def list_sequence(part: Part, own: dict[str, Tensor]) -> list[ColumnValues]:
    """Returns the mean and the spread over the steps of each feature."""
    steps = own["dense"].double()
    return list_moments(name_part(part, "feature"), steps.mean(1), steps.std(1))


def list_moments(name: str, means: Tensor, spreads: Tensor) -> list[ColumnValues]:
    """Returns means and spreads (N, C) as columns."""
    found = []
    for number in range(means.shape[1]):
        for word, values in (("mean", means), ("spread", spreads)):
            own = values[:, number].numpy()
            found.append(ColumnValues(f"{word} of {name} {number + 1}", own))
    return found


def list_text(part: Part, own: dict[str, Tensor]) -> list[ColumnValues]:
    """Returns the number of tokens, and all tokens as one column."""
    tokens = own["tokens"]
    length = (tokens > 0).sum(1).double().numpy()
    every = tokens[tokens > UNKNOWN].numpy()
    return [
        ColumnValues(name_part(part, "length"), length),
        ColumnValues(name_part(part, "tokens"), every, True, part.words, by_row=False),
    ]


def list_graph(part: Part, own: dict[str, Tensor]) -> list[ColumnValues]:
    """Returns the numbers of nodes and edges, and the mean of each feature of nodes."""
    mask = own["node_mask"]
    count = mask.sum(1).clamp(min=1)
    edges = (own["edges"] >= 0).all(-1).sum(1)
    means = (own["nodes"].double() * mask[..., None]).sum(1) / count[:, None]
    found = [
        ColumnValues(name_part(part, "nodes"), mask.sum(1).double().numpy()),
        ColumnValues(name_part(part, "edges"), edges.double().numpy()),
    ]
    for number in range(means.shape[1]):
        name = name_part(part, f"node feature {number + 1}")
        found.append(ColumnValues(name, means[:, number].numpy()))
    return found


def name_part(part: Part, word: str) -> str:
    """Returns the name of what sums a part up."""
    return f"{word} of {part.name}" if part.name else word


def list_predictions(name: str, task: Task, outputs: Tensor) -> list[ColumnValues]:
    """Returns the predictions of a task as columns.

    They are decoded; of tokens and pixels they are the classes of all, or the mean of each row.

    Args:
        name: The task.
        task: The same task.
        outputs: (N, O); or (N, ..., O) of tokens and pixels, NaN at padding.
    """
    classes = tuple(str(label) for label in getattr(task, "classes", ()))
    if outputs.ndim > 2 and len(classes) == outputs.shape[-1]:
        flat = outputs.flatten(0, -2)
        codes = flat[~flat.isnan().any(-1)].argmax(-1) + 1
        return [ColumnValues(name, codes.numpy(), True, classes, by_row=False)]
    if outputs.ndim > 2:
        means = outputs.double().flatten(1, -2).nanmean(1)
        return [
            ColumnValues(f"{name}: mean of output {k + 1}", means[:, k].numpy())
            for k in range(means.shape[1])
        ]
    found = []
    for suffix, values in task.decode(outputs).items():
        label = f"{name}.{suffix}" if suffix else name
        found.append(read_decoded(label, list(values)))
    return found


def read_decoded(name: str, values: list[Any]) -> ColumnValues:
    """Returns decoded predictions as numbers, or as the codes of words."""
    if all(isinstance(value, float) for value in values):
        return ColumnValues(name, np.array(values, dtype=np.float64))
    words = [str(value) for value in values]
    vocabulary = sorted(set(words))
    places = {word: number for number, word in enumerate(vocabulary, 1)}
    codes = np.array([places[word] for word in words], dtype=np.int64)
    return ColumnValues(name, codes, True, tuple(vocabulary))


def merge_rare(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns codes in which rare words are one with words that training did not have.

    Rows of the same kind as the training rows have words that training lacks, as many as training
    has words that are there once or so: apart from each other, both would look like a shift.

    Args:
        before: (N,) codes of training rows.
        after: (M,) codes of other rows.
    """
    size = int(max(before.max(initial=0), after.max(initial=0))) + 1
    count = np.bincount(before, minlength=size) + np.bincount(after, minlength=size)
    kept = count >= LEAST_COUNT
    kept[0] = False
    codes = np.where(kept, np.arange(size), 0)
    return codes[before], codes[after]


def make_features(
    parts: Sequence[Part], before: Inputs, after: Inputs
) -> tuple[np.ndarray, list[bool]]:
    """Returns what a classifier sees of two samples, and which features are categories.

    Args:
        parts: The parts of a sample.
        before: The inputs of N training rows.
        after: The inputs of M other rows.

    Returns:
        (N + M, features), and whether each feature holds codes.
    """
    features: list[np.ndarray] = []
    categories: list[bool] = []
    pairs = zip(list_values(parts, before), list_values(parts, after), strict=True)
    for ours, theirs in pairs:
        if not ours.by_row:
            continue
        x, y = ours.values, theirs.values
        if ours.is_category:
            x, y = merge_rare(x, y)
        joined = np.concatenate([x, y]).astype(np.float64)
        if ours.is_category:
            joined = rank_codes(joined)
        features.append(joined[:, None])
        categories.append(ours.is_category)
    for part in parts:
        own = [part.read(inputs) for inputs in (before, after)]
        further = np.zeros((len(features[0]), 0))
        if part.kind == "image":
            further = np.concatenate([shrink_images(one["dense"]) for one in own])
        if part.kind == "text":
            further = count_frequent([one["tokens"] for one in own])
        features.append(further)
        categories += [False] * further.shape[1]
    return np.concatenate(features, 1), categories


def rank_codes(codes: np.ndarray, most: int = 200) -> np.ndarray:
    """Returns codes from 0 by frequency; all beyond ``most`` are one, as classifiers need it."""
    values, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    ranks = np.empty(len(values))
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(values))
    return np.minimum(ranks, most)[places]


def shrink_images(images: Tensor) -> np.ndarray:
    """Returns small images (N, C * GRID * GRID) of images."""
    small = F.adaptive_avg_pool2d(images.float(), min(GRID, *images.shape[-2:]))
    found: np.ndarray = small.flatten(1).double().numpy()
    return found


def count_frequent(tokens: Sequence[Tensor]) -> np.ndarray:
    """Returns the share of each of the most frequent tokens in each row of two samples."""
    size = max(int(one.max()) for one in tokens) + 1
    total = sum(torch.bincount(one.flatten(), minlength=size) for one in tokens)
    assert isinstance(total, Tensor)
    total[: UNKNOWN + 1] = 0
    frequent = total.argsort(descending=True)[:FREQUENT]
    shares = []
    for one in tokens:
        length = (one > 0).sum(1).clamp(min=1)
        columns = [(one == token).sum(1) / length for token in frequent]
        shares.append(torch.stack(columns, 1).double().numpy())
    return np.concatenate(shares)
