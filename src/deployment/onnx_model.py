"""One ONNX file from rows to predictions: the front, the network, and the classes' names."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from src.deployment.decoding import Decoded
from src.deployment.graph import ML, ML_VERSION, STRINGS, TYPES, GraphWriter, absorb_core
from src.deployment.network import RAW, DecodedNetwork
from src.deployment.onnx_core import OPSET
from src.deployment.onnx_front import BATCH, read_table, read_tensor
from src.errors import UserError
from src.tasks.labels import Label

if TYPE_CHECKING:
    from onnx import ModelProto

    from src.deployment.row_inputs import RowInput

PRODUCER = "multitask-lightning"
BETWEEN = "|"  # of the words in a set


def make_model(
    core: "ModelProto",
    network: DecodedNetwork,
    inputs: Sequence["RowInput"],
    metadata: dict[str, Any],
) -> "ModelProto":
    """Returns the whole model.

    Args:
        core: The network as ONNX, see :func:`make_core`.
        network: The network.
        inputs: The inputs of rows.
        metadata: What the file says of itself.

    Raises:
        UserError: An input and an output have the same name.
    """
    names = [each.feed for each in inputs]
    refuse_same_names(names, list(network.columns))
    writer = GraphWriter(find_prefix([*names, *network.columns]))
    results = absorb_core(writer, core.graph, feed_network(writer, network, inputs))

    # in the order of the table
    writer.inputs.sort(key=lambda entry: names.index(entry.name))
    types = {entry.name: entry.type.tensor_type for entry in core.graph.output}
    for entry, name, value in zip(core.graph.output, network.outputs, results, strict=True):
        if name.startswith(RAW):
            continue
        kind = types[entry.name].elem_type
        column = network.columns[name]
        shape = list(types[entry.name].shape.dim[1:])
        if column.is_set:
            value, kind, shape = join_set(writer, value, column), STRINGS, []
        elif column.classes is not None:
            words, kind = write_classes(column.classes)
            value = writer.add("Gather", writer.keep(words), value)
        sizes: list[int | str] = [BATCH]
        for k, dim in enumerate(shape):
            sizes.append(dim.dim_value or f"{name}_{k}")
        writer.write(value, name, kind, sizes)
    return finish(writer, core, metadata)


def feed_network(
    writer: GraphWriter, network: DecodedNetwork, inputs: Sequence["RowInput"]
) -> list[str]:
    """Adds the inputs of rows, and returns the results that are the network's inputs."""
    columns = [each for each in inputs if each.kind != "tensor"]
    ready: dict[str, str] = {}
    if columns:
        ready["dense"], ready["categorical"] = read_table(writer, columns)
    for each in inputs:
        if each.kind == "tensor":
            ready[each.key] = read_tensor(writer, each)
    # of several inputs the names begin with that of the table
    return [ready.get(name) or ready[name.rpartition("/")[2]] for name in network.inputs]


def finish(writer: GraphWriter, core: "ModelProto", metadata: dict[str, Any]) -> "ModelProto":
    """Returns the graph as a checked model."""
    graph = helper.make_graph(
        writer.nodes, PRODUCER, writer.inputs, writer.outputs, writer.constants
    )
    domains = {entry.domain: entry.version for entry in core.opset_import}
    domains |= {"": OPSET, ML: ML_VERSION}
    model = helper.make_model(
        graph,
        producer_name=PRODUCER,
        ir_version=core.ir_version,
        opset_imports=[helper.make_opsetid(*pair) for pair in domains.items()],
        functions=list(core.functions),
    )
    plain = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    helper.set_model_props(model, plain)
    onnx.checker.check_model(model)
    return model


def join_set(writer: GraphWriter, chosen: str, column: Decoded) -> str:
    """Returns the words of each row's set as one text, joined as ``predict`` joins them."""
    assert column.classes is not None
    text = writer.add("Where", take_place(writer, chosen, 0), *keep_words(writer, column, 0))
    for place in range(1, len(column.classes)):
        is_in = take_place(writer, chosen, place)
        is_first = writer.add("Equal", text, writer.keep(""))
        mark = writer.add("Where", is_first, writer.keep(""), writer.keep(BETWEEN))
        word, nothing = keep_words(writer, column, place)
        added = writer.add("Where", is_in, writer.add("StringConcat", mark, word), nothing)
        text = writer.add("StringConcat", text, added)
    return text


def take_place(writer: GraphWriter, chosen: str, place: int) -> str:
    """Returns whether a class is in the set of each row, from (N, C)."""
    return writer.add("Gather", chosen, writer.keep(place, "int64"), axis=1)


def keep_words(writer: GraphWriter, column: Decoded, place: int) -> tuple[str, str]:
    """Returns the word of a class, and an empty one."""
    assert column.classes is not None
    return writer.keep(str(column.classes[place])), writer.keep("")


def write_classes(classes: Sequence[Label]) -> tuple[np.ndarray, int]:
    """Returns classes as a constant with their type in ONNX: whole numbers stay numbers."""
    kinds = {type(label) for label in classes}
    if kinds == {int}:
        return np.array(classes, np.int64), TensorProto.INT64
    if kinds == {bool}:
        return np.array(classes, bool), TensorProto.BOOL
    if kinds == {float}:
        return np.array(classes, np.float64), TYPES["float64"]
    return np.array([str(label) for label in classes], dtype=object), STRINGS


def refuse_same_names(inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuses names that a graph cannot have.

    Raises:
        UserError: An input and an output, or two outputs, have one name.
    """
    for name in outputs:
        if name in inputs or list(outputs).count(name) > 1:
            raise UserError(f"two columns of the model are named '{name}': rename the task")


def find_prefix(taken: Sequence[str]) -> str:
    """Returns a beginning that no name has."""
    prefix = "_"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    return prefix
