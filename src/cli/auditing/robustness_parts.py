"""The parts of a run's inputs: their columns in the data's own words, and what training says."""

from dataclasses import replace

from src.analysis.robustness.parts import (
    Inputs,
    Part,
    PartColumn,
    find_kind,
    measure_training,
    split_parts,
)
from src.batch import InputShape
from src.data import MultiTaskDataModule
from src.data.tables.columns import Categorical, Numeric, name_member
from src.data.tables.table import Table
from src.data.tables.texts import Text, open_tokenizer
from src.data.treebanks.treebank import Treebank
from src.models.feature_selection.columns import list_columns


def describe_parts(data: MultiTaskDataModule) -> list[Part]:
    """Returns the parts of the inputs of a run's data, the columns of a table by name."""
    texts = {}
    if isinstance(data, Table):
        texts = {name_member(c): c for c in data.columns if isinstance(c, Text)}
    found = []
    for name, shape in split_parts(data.input_shape):
        part = Part(name, find_kind(shape), shape)
        if part.kind == "table":
            is_table = isinstance(data, Table) and bool(shape.columns)
            columns = read_columns(data) if is_table else list_unnamed(shape)
            part = replace(part, columns=tuple(columns), has_missing=is_table)
        if part.kind == "text":
            # a text alone has no name of its own among the inputs
            text = texts.get(name, next(iter(texts.values()), None))
            if text is not None:
                part = replace(part, words=list_words(text), special=text.special)
            if isinstance(data, Treebank):
                part = replace(part, words=("an unknown word", *data.words.words))
        found.append(part)
    return found


def list_words(text: Text) -> tuple[str | None, ...]:
    """Returns the token behind each code of a column of texts, from 1 on."""
    tokenizer = open_tokenizer(text.tokenizer)
    # padding has changed its place with the token 0
    numbers = list(range(tokenizer.get_vocab_size()))
    numbers[0], numbers[text.padding] = numbers[text.padding], numbers[0]
    return tuple(tokenizer.decode([number]).strip() for number in numbers[1:])


def learn_parts(parts: list[Part], training: Inputs) -> list[Part]:
    """Returns parts with what training rows say of them."""
    return [replace(part, training=measure_training(part, training)) for part in parts]


def read_columns(data: MultiTaskDataModule) -> list[PartColumn]:
    """Returns the columns of a table, with the places of their indicators and their words."""
    assert isinstance(data, Table)
    dense = 0
    categories = 0
    found: dict[str, PartColumn] = {}
    for column in data.columns:
        if isinstance(column, Numeric):
            # parts of a date are one column
            before = found.get(column.source, PartColumn(column.source))
            units = (*before.units, (column.mean, column.std))
            own = replace(before, numbers=(*before.numbers, dense), units=units)
            dense += 1
            if column.indicator:
                own = replace(own, indicators=(*own.indicators, dense))
                dense += 1
            found[column.source] = own
        elif isinstance(column, Categorical):
            words = column.vocabulary
            code = words.index(None) + 1 if None in words else 0
            key = f"{column.source} as a category" if column.source in found else column.source
            found[key] = PartColumn(key, (), (), categories, code, words)
            categories += 1
    return list(found.values())


def list_unnamed(shape: InputShape) -> list[PartColumn]:
    """Returns the columns of inputs whose data read no missing values."""
    found = []
    for column in list_columns(shape):
        if column.dense:
            found.append(PartColumn(column.name, column.dense))
        found += [PartColumn(column.name, category=place) for place in column.categories]
    return found
