"""Smaller weights of an ONNX network: whole numbers of 8 bits, or floats of 16."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.deployment.onnx_core import quiet_exporter

if TYPE_CHECKING:
    from onnx import ModelProto

HALVES = {"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16}
LEAST = 2  # dimensions of a weight; biases and norms are small, and stay whole


def quantise(core: "ModelProto", how: str) -> "ModelProto":
    """Returns a network with smaller weights; it computes in single precision, or 8 bits in int8.

    Args:
        core: The network.
        how: int8 (weights in 8 bits, activations by the range of each batch), bf16 or fp16
            (weights alone).
    """
    return quantise_to_integers(core) if how == "int8" else halve_weights(core, HALVES[how])


def quantise_to_integers(core: "ModelProto") -> "ModelProto":
    """Returns a network whose matrix products are of whole numbers of 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # what it recommends has been done by the exporter
    root = logging.getLogger()
    root.addFilter(is_no_advice)
    with TemporaryDirectory() as name, quiet_exporter():
        path = Path(name) / "core.onnx"
        onnx.save(core, path)
        quantised = path.with_name("int8.onnx")
        quantize_dynamic(
            path,
            quantised,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            # 8 whole bits overflow in the products of processors that have no VNNI
            reduce_range=True,
        )
        found = onnx.load(quantised)
    root.removeFilter(is_no_advice)
    return found


def is_no_advice(record: logging.LogRecord) -> bool:
    """Returns whether a line of the log is none that recommends another step before."""
    return "pre-processing before quantization" not in record.getMessage()


def halve_weights(core: "ModelProto", kind: int) -> "ModelProto":
    """Returns a network that keeps its weights in 16 bits, and widens them when it is opened."""
    found = onnx.ModelProto()
    found.CopyFrom(core)
    casts = []
    kept = []
    for weight in found.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < LEAST:
            kept.append(weight)
            continue
        values = numpy_helper.to_array(weight)
        small = f"{weight.name}_16"
        kept.append(make_half(small, values, kind))
        casts.append(helper.make_node("Cast", [small], [weight.name], to=TensorProto.FLOAT))
    nodes = [*casts, *found.graph.node]
    del found.graph.initializer[:], found.graph.node[:]
    found.graph.initializer.extend(kept)
    found.graph.node.extend(nodes)
    return found


def make_half(name: str, values: np.ndarray, kind: int) -> TensorProto:
    """Returns a weight in 16 bits, rounded to the nearest."""
    if kind == TensorProto.FLOAT16:
        return numpy_helper.from_array(values.astype(np.float16), name)
    # the upper half of a float, rounded to even
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    raw = rounded.astype("<u2").tobytes()
    return helper.make_tensor(name, kind, values.shape, raw, raw=True)
