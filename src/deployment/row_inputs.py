"""The inputs of an exported model: one for each column of a table, or for each tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from src.batch import InputShape
from src.data import MultiTaskDataModule
from src.data.tables.columns import (
    TABLE,
    Categorical,
    Column,
    MemberColumn,
    Numeric,
    name_member,
)
from src.data.tables.dates import DatePart
from src.data.tables.image_column import Image
from src.data.tables.numbers import WORDS_FOR_MISSING, NumberFormat
from src.data.tables.table import Table
from src.data.tables.texts import Text
from src.data.treebanks.treebank import Treebank
from src.data.treebanks.vocabulary import END, UNKNOWN
from src.deployment.network import DYNAMIC
from src.errors import UserError

Inputs = Tensor | dict[str, Tensor]
DTYPES = {torch.float32: "float32", torch.int64: "int64", torch.bool: "bool"}


@dataclass(frozen=True)
class RowInput:
    """One input of the graph.

    Attributes:
        feed: Its name in the graph: the column's, and that of a part of a date.
        column: The column of a row.
        kind: number, word or tensor; a part of a date is a number.
        form: How it is written: the fields of its entry in schema.json.
        key: The network's input that it belongs to.
        part: The part of a date; '' for what is none.
    """

    feed: str
    column: str
    kind: str
    form: Mapping[str, Any]
    key: str
    part: str = ""


def list_inputs(data: MultiTaskDataModule, example: Inputs) -> list[RowInput]:
    """Returns the inputs of a graph for the rows of a data module.

    Args:
        data: The data module.
        example: Inputs of a few rows, as the network reads them.

    Raises:
        UserError: A column has no form that a graph reads.
    """
    tensors = dict(example) if isinstance(example, dict) else {"inputs": example}
    columns: Sequence[Column] = data.columns if isinstance(data, Table) else []
    missing = data.layout.words_for_missing if isinstance(data, Table) else []
    found = []
    members: dict[str, MemberColumn] = {}
    for column in columns:
        if isinstance(column, MemberColumn):
            members[name_member(column)] = column
        else:
            found.append(describe_column(column, missing))
    of_table = {"dense", "categorical", f"{TABLE}/dense", f"{TABLE}/categorical"}
    shapes = dict(data.input_shape.members) or {"": data.input_shape}
    for key, values in tensors.items():
        if not (found and key in of_table):
            limit = find_limit(shapes[key.rpartition("/")[0]], key)
            found.append(describe_tensor(key, values, members, limit))
    refuse_doubles(found)
    return found


def describe_column(column: Numeric | Categorical, missing: Sequence[str]) -> RowInput:
    """Returns the input of a numeric or categorical column."""
    if isinstance(column, Categorical):
        words = [word for word in column.vocabulary if word is not None]
        form: dict[str, Any] = {
            "vocabulary": words,
            "missing": [word for word in missing if word not in words],
            "missing_is_word": None in column.vocabulary,
        }
        return RowInput(column.column, column.column, "word", form, "categorical")

    reads = column.reads
    part = reads.part if isinstance(reads, DatePart) else ""
    how = NumberFormat() if isinstance(reads, DatePart) else reads
    form = {
        "decimal": how.decimal,
        "thousands": how.thousands,
        "unit": how.unit,
        "truth": how.truth,
        "written": "" if how.plain else f" ({how})",
        "mean": column.mean,
        "std": column.std,
        "indicator": column.indicator,
        "missing": sorted({"", *missing}),
        "missing_lower": sorted(WORDS_FOR_MISSING),
    }
    if isinstance(reads, DatePart):
        form["format"] = reads.format
    return RowInput(column.column, column.source, "number", form, "dense", part)


def find_limit(shape: InputShape, key: str) -> list[int | None]:
    """Returns the smallest and the largest number of an input; None where any may be."""
    sizes = {"tokens": shape.tokens, "parts": shape.parts}
    size = sizes.get(key.rpartition("/")[2], 0)
    return [0, size - 1] if size else [None, None]


def describe_tensor(
    key: str, values: Tensor, members: Mapping[str, MemberColumn], limit: list[int | None]
) -> RowInput:
    """Returns the input of a tensor (N, ...), which keeps the name that the network gives it.

    Args:
        key: Its name.
        values: Values of some rows.
        members: The columns that are inputs of their own, by the names of their inputs.
        limit: The smallest and the largest number.
    """
    column = members.get(key.rpartition("/")[0] or next(iter(members), ""))
    if values.dtype not in DTYPES:
        raise UserError(f"the input '{key}' is of {values.dtype}, which src.export does not write")
    open_sizes = DYNAMIC.get(key.rpartition("/")[2], 1) - 1
    shape = [None if k < open_sizes else size for k, size in enumerate(values.shape[1:])]
    form: dict[str, Any] = {"dtype": DTYPES[values.dtype], "shape": shape, "range": limit}
    if isinstance(column, Image):
        # pixels go in as image files have them
        form |= {"dtype": "uint8", "range": [0, 255]}
        form |= {"key": key, "pixels": [list(column.mean), list(column.std)]}
        return RowInput(column.column, column.column, "tensor", form, key)
    if isinstance(column, Text):
        # whoever calls turns texts into tokens by the tokenizers library
        form |= {"tokenizer": column.tokenizer, "max_tokens": column.max_tokens}
        form |= {"padding": column.padding, "special": column.special}
    return RowInput(key, key, "tensor", {**form, "key": key, "pixels": []}, key)


def refuse_doubles(inputs: Sequence[RowInput]) -> None:
    """Refuses inputs of one name.

    Raises:
        UserError: Two have the same.
    """
    names = [each.feed for each in inputs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two inputs are named '{name}': rename one of the columns")


def describe_inputs(inputs: Sequence[RowInput]) -> list[dict[str, Any]]:
    """Returns the entries of schema.json, one for each column of a row."""
    entries: list[dict[str, Any]] = []
    dates: dict[str, dict[str, Any]] = {}
    for each in inputs:
        if not each.part:
            entries.append({"name": each.column, "kind": each.kind, **each.form})
            continue
        if each.column not in dates:
            kept = {key: each.form[key] for key in ("format", "missing", "missing_lower")}
            dates[each.column] = {"name": each.column, "kind": "date", **kept}
            dates[each.column] |= {"parts": [], "scales": {}}
            entries.append(dates[each.column])
        scale = {key: each.form[key] for key in ("mean", "std", "indicator")}
        dates[each.column]["parts"].append(each.part)
        dates[each.column]["scales"][each.part] = scale
    return entries


def describe_vocabulary(data: MultiTaskDataModule) -> dict[str, Any]:
    """Returns the words and characters behind the numbers of tokens; empty for other data.

    The first word has the number after 'unknown_word', the first character that after
    'end_of_word'; 0 is padding.
    """
    if not isinstance(data, Treebank):
        return {}
    schema = data.schema()
    kept = {key: schema[key] for key in ("words", "lower", "characters", "max_characters")}
    return {"vocabulary": {**kept, "unknown_word": UNKNOWN, "end_of_word": END}}


def take_values(inputs: Sequence[RowInput], example: Inputs) -> dict[str, Tensor]:
    """Returns {column: values (N, ...)} of the inputs that are tensors, as rows have them."""
    tensors = example if isinstance(example, dict) else {"inputs": example}
    found = {}
    for each in inputs:
        if each.kind == "tensor":
            values = tensors[each.key]
            if each.form["pixels"]:
                mean, std = (torch.tensor(part)[:, None, None] for part in each.form["pixels"])
                values = ((values * std + mean) * 255).round()
            found[each.column] = values
    return found
