"""Weights in 16 bits are those of torch, and networks of 8 bits stay near."""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from src.deployment.quantisation import make_half, quantise  # noqa: E402


def make_core():
    generator = np.random.default_rng(0)
    w = generator.normal(size=(8, 4)).astype(np.float32)
    b = generator.normal(size=4).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), w, b


def run(model, x):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_halves_round_as_torch_does():
    values = np.random.default_rng(1).normal(size=(50, 7)).astype(np.float32)
    values[0, :4] = [1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 0.0]
    for kind, dtype in ((TensorProto.BFLOAT16, torch.bfloat16), (TensorProto.FLOAT16, torch.half)):
        raw = np.frombuffer(make_half("w", values, kind).raw_data, np.int16)
        expected = torch.from_numpy(values).to(dtype).view(torch.int16).numpy()
        np.testing.assert_array_equal(raw.reshape(values.shape), expected)


@pytest.mark.parametrize(("how", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.half)])
def test_a_network_computes_with_the_rounded_weights(how, dtype):
    core, w, b = make_core()
    x = np.random.default_rng(2).normal(size=(3, 8)).astype(np.float32)
    rounded = torch.from_numpy(w).to(dtype).float().numpy()
    np.testing.assert_allclose(run(quantise(core, how), x), x @ rounded + b, rtol=1e-5, atol=1e-5)
    assert core.graph.initializer[0].data_type == TensorProto.FLOAT


def test_whole_numbers_of_8_bits_are_near():
    core, w, b = make_core()
    x = np.random.default_rng(2).normal(size=(30, 8)).astype(np.float32)
    error = np.abs(run(quantise(core, "int8"), x) - (x @ w + b)).max()
    assert 1e-6 < error < 0.2
