"""A writer of ONNX graphs: each call adds one operation and returns the name of its result."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, ValueInfoProto

ML = "ai.onnx.ml"  # the domain of operations on words
ML_VERSION = 4
STRINGS = TensorProto.STRING
TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


class GraphWriter:
    """Collects the operations, constants, inputs and outputs of one graph.

    Args:
        prefix: What the names of intermediate results begin with; no input or output does.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []

    def name(self) -> str:
        """Returns a new name."""
        return f"{self.prefix}{len(self.nodes)}_{len(self.constants)}"

    def add(self, operation: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds an operation, and returns the name of its first result."""
        name = self.name()
        self.nodes.append(
            helper.make_node(operation, list(inputs), [name], domain=domain, **attributes)
        )
        return name

    def keep(self, values: Any, dtype: str | None = None) -> str:
        """Adds a constant, and returns its name; texts stay texts."""
        name = f"{self.prefix}c{len(self.constants)}"
        array = np.asarray(values)
        if array.dtype.kind in "UO":
            words = np.array([str(word).encode() for word in array.ravel()], object)
            self.constants.append(helper.make_tensor(name, STRINGS, array.shape, words))
        else:
            self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def read(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Adds an input, and returns its name."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def write(self, value: str, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """Gives a result the name of an output."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def match(self, texts: str, pattern: str) -> str:
        """Returns where texts match a pattern whole."""
        return self.add("RegexFullMatch", texts, pattern=pattern)

    def look_up(self, texts: str, positions: dict[str, int], default: int) -> str:
        """Returns the position of each text, int64."""
        return self.add(
            "LabelEncoder",
            texts,
            domain=ML,
            keys_strings=list(positions),
            values_int64s=list(positions.values()),
            default_int64=default,
        )

    def concat(self, parts: Sequence[str], axis: int) -> str:
        """Joins results along an axis."""
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=axis)


def absorb_core(writer: GraphWriter, core: "GraphProto", feeds: Sequence[str]) -> list[str]:
    """Adds the operations of a network's graph, and returns the names of its results.

    Args:
        writer: The graph that they are added to.
        core: The network.
        feeds: The results that are its inputs, in order.
    """
    renamed = {"": ""}
    for entry, name in zip(core.input, feeds, strict=True):
        renamed[entry.name] = name

    def rename(name: str) -> str:
        return renamed.setdefault(name, f"{writer.prefix}n_{name}")

    for constant in core.initializer:
        kept = TensorProto()
        kept.CopyFrom(constant)
        kept.name = rename(constant.name)
        writer.constants.append(kept)
    for node in core.node:
        kept_node = onnx.NodeProto()
        kept_node.CopyFrom(node)
        rename_node(kept_node, rename)
        writer.nodes.append(kept_node)
    return [rename(entry.name) for entry in core.output]


def rename_node(node: "NodeProto", rename: Any) -> None:
    """Renames what a node reads and writes, in graphs inside it, too."""
    node.name = ""
    inputs, outputs = [rename(n) for n in node.input], [rename(n) for n in node.output]
    del node.input[:], node.output[:]
    node.input.extend(inputs)
    node.output.extend(outputs)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for entry in (*graph.input, *graph.output, *graph.initializer):
                entry.name = rename(entry.name)
            del graph.value_info[:]
            for inner in graph.node:
                rename_node(inner, rename)
