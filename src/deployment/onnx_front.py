"""The front of an ONNX file: texts as people write them become the tensors of the network.

A number is checked against the form of its column, freed of its unit and of the marks between
thousands, and standardised; a word becomes its position in the vocabulary. What cannot be right
never becomes a number: the graph then ends with an error, as ONNX has no other way to refuse.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from src.deployment.graph import STRINGS, TYPES, GraphWriter
from src.deployment.rows import FARTHEST, find_codes, is_plain, list_marks, number_pattern

if TYPE_CHECKING:
    from src.deployment.row_inputs import RowInput

BATCH = "rows"
PIECES = 16  # more than a number has between its marks, see number_pattern
WRONG = "?"  # a text that no cast reads as a number


def read_table(writer: GraphWriter, columns: Sequence["RowInput"]) -> tuple[str, str]:
    """Adds the inputs of numeric and categorical columns, and what encodes them.

    Args:
        writer: The graph.
        columns: The columns, numeric ones in the order of the network's numbers.

    Returns:
        The results that hold dense (N, F) float and categorical (N, C) int64.
    """
    groups: dict[str, list[RowInput]] = {}
    codes = []
    for column in columns:
        if column.kind == "word":
            codes.append(read_words(writer, column))
        else:
            # columns that are written alike are read by one operation
            form = {**column.form, "mean": 0, "std": 1, "indicator": False}
            groups.setdefault(repr(sorted(form.items())), []).append(column)

    standard, missing, order = [], [], []
    for members in groups.values():
        values, gone = read_numbers(writer, members)
        standard.append(values)
        missing.append(gone)
        order += members
    dense = join_dense(writer, columns, order, standard, missing)
    return dense, join_codes(writer, codes, columns)


def join_dense(
    writer: GraphWriter,
    columns: Sequence["RowInput"],
    order: Sequence["RowInput"],
    standard: Sequence[str],
    missing: Sequence[str],
) -> str:
    """Returns (N, F): each column's number, behind it its indicator where it has one."""
    if not order:
        return empty(writer, columns, "float32")
    both = [writer.concat(standard, 1), writer.concat(missing, 1)]
    place = {column.feed: k for k, column in enumerate(order)}
    wanted = []
    for column in columns:
        if column.kind != "word":
            wanted.append(place[column.feed])
            wanted += [len(order) + place[column.feed]] if column.form["indicator"] else []
    indices = writer.keep(wanted, "int64")
    return writer.add("Gather", writer.concat(both, 1), indices, axis=1)


def join_codes(writer: GraphWriter, codes: Sequence[str], columns: Sequence["RowInput"]) -> str:
    """Returns (N, C) positions."""
    return writer.concat(codes, 1) if codes else empty(writer, columns, "int64")


def empty(writer: GraphWriter, columns: Sequence["RowInput"], dtype: str) -> str:
    """Returns (N, 0), with the N of the first column."""
    rows = writer.add("Shape", columns[0].feed)
    shape = writer.add("Concat", rows, writer.keep([0], "int64"), axis=0)
    zeros = writer.add("ConstantOfShape", shape)
    return writer.add("Cast", zeros, to=TYPES[dtype])


def read_words(writer: GraphWriter, column: "RowInput") -> str:
    """Adds a column of words, and returns their positions (N, 1); 0 for words that are new."""
    text = writer.read(column.feed, STRINGS, [BATCH])
    codes = writer.look_up(text, find_codes(column.form), 0)
    return writer.add("Unsqueeze", codes, writer.keep([1], "int64"))


def read_numbers(writer: GraphWriter, columns: Sequence["RowInput"]) -> tuple[str, str]:
    """Adds columns of numbers that are written alike.

    Returns:
        The standardised numbers (N, K), 0 where missing; and 1 where missing (N, K), both float.
    """
    axis = writer.keep([1], "int64")
    texts = []
    for column in columns:
        text = writer.read(column.feed, STRINGS, [BATCH])
        texts.append(writer.add("Unsqueeze", text, axis))
    values = parse_numbers(writer, writer.concat(texts, 1), columns[0].form)
    mean = writer.keep([[column.form["mean"] for column in columns]], "float64")
    std = writer.keep([[column.form["std"] for column in columns]], "float64")

    missing = writer.add("IsNaN", values)
    standard = writer.add("Div", writer.add("Sub", values, mean), std)
    zero = writer.keep(0, "float64")
    standard = writer.add("Where", missing, zero, standard)
    far = writer.add("Greater", writer.add("Abs", standard), writer.keep(FARTHEST, "float64"))
    standard = writer.add("Add", standard, refuse_where(writer, far))
    return (
        writer.add("Cast", standard, to=TensorProto.FLOAT),
        writer.add("Cast", missing, to=TensorProto.FLOAT),
    )


def refuse_where(writer: GraphWriter, condition: str) -> str:
    """Returns zeros, and ends with an error where a condition holds."""
    text = writer.add("Where", condition, writer.keep(WRONG), writer.keep("0"))
    return writer.add("Cast", text, to=TensorProto.DOUBLE)


def parse_numbers(writer: GraphWriter, texts: str, form: Mapping[str, Any]) -> str:
    """Returns the numbers of texts, float64, NaN where missing."""
    missing = writer.match(texts, missing_pattern(form))
    flags = "(?i)" if form["truth"] else ""
    fits = writer.match(texts, flags + number_pattern(dict(form)))
    checked = writer.add("Where", fits, texts, writer.keep(WRONG))
    if form["truth"]:
        is_yes = writer.match(texts, r"(?i)true|1(?:\.0)?")
        word = writer.add("Where", is_yes, writer.keep("1"), writer.keep("0"))
        checked = writer.add("Where", fits, word, writer.keep(WRONG))
    elif not is_plain(dict(form)):
        for mark in list_marks(dict(form)):
            checked = remove_mark(writer, checked, mark, "")
        if form["decimal"] != ".":
            checked = remove_mark(writer, checked, form["decimal"], ".", pieces=2)

    checked = writer.add("Where", missing, writer.keep("nan"), checked)
    values = writer.add("Cast", checked, to=TensorProto.DOUBLE)
    if is_plain(dict(form)) or form["truth"]:
        return values
    negative = writer.match(texts, r"\(.*\)")
    return writer.add("Where", negative, writer.add("Neg", values), values)


def missing_pattern(form: Mapping[str, Any]) -> str:
    """Returns a regular expression for texts that say that a value is missing."""
    exact = "|".join(map(re.escape, form["missing"]))
    lower = "|".join(map(re.escape, form["missing_lower"]))
    return rf"\s*(?:{exact}|(?i:{lower}))\s*"


def remove_mark(
    writer: GraphWriter, texts: str, mark: str, between: str, pieces: int = PIECES
) -> str:
    """Returns texts (N, K) without a mark, or with another one in its place."""
    # marks at the end see to it that each text has as many pieces
    padded = writer.add("StringConcat", texts, writer.keep(mark * (pieces - 1)))
    split = writer.add("StringSplit", padded, delimiter=mark)
    # its second result counts the pieces
    writer.nodes[-1].output.append(f"{split}_count")
    joined = writer.add("Gather", split, writer.keep(0, "int64"), axis=2)
    for place in range(1, pieces):
        piece = writer.add("Gather", split, writer.keep(place, "int64"), axis=2)
        if between:
            joined = writer.add("StringConcat", joined, writer.keep(between))
        joined = writer.add("StringConcat", joined, piece)
    return joined


def read_tensor(writer: GraphWriter, column: "RowInput") -> str:
    """Adds an input of numbers; the pixels of images are standardised."""
    form = column.form
    sizes: list[int | str] = [BATCH]
    for k, size in enumerate(form["shape"]):
        sizes.append(f"{column.feed}_{k}" if size is None else size)
    values = writer.read(column.feed, TYPES[form["dtype"]], sizes)
    if not form["pixels"]:
        return values
    mean, std = (np.array(each, np.float32)[:, None, None] for each in form["pixels"])
    pixels = writer.add("Cast", values, to=TensorProto.FLOAT)
    shares = writer.add("Div", pixels, writer.keep(255.0, "float32"))
    return writer.add("Div", writer.add("Sub", shares, writer.keep(mean)), writer.keep(std))
