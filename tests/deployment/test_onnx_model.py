"""Names and classes of a whole model."""

import numpy as np
import pytest
import torch

from src.deployment.decoding import Decoded
from src.errors import UserError

pytest.importorskip("onnxruntime")

from onnx import TensorProto

from src.deployment.graph import STRINGS, GraphWriter
from src.deployment.onnx_model import (
    find_prefix,
    join_set,
    refuse_same_names,
    write_classes,
)
from tests.deployment.test_onnx_front import open_graph


def test_sets_are_joined_as_predict_joins_them():
    column = Decoded(torch.zeros(1, 3, dtype=torch.bool), ("low", "mid", "high"), is_set=True)
    writer = GraphWriter("_")
    chosen = writer.read("chosen", TensorProto.BOOL, ["rows", 3])
    session = open_graph(writer, {"set": (join_set(writer, chosen, column), STRINGS, ["rows"])})
    rows = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]], bool)
    (found,) = session.run(None, {"chosen": rows})
    assert found.tolist() == ["low|high", "", "mid", "mid|high", "low|mid|high"]


def test_classes_keep_their_type():
    assert write_classes((3, 5))[1] == TensorProto.INT64
    assert write_classes((0.5, 1.0))[1] == TensorProto.DOUBLE
    assert write_classes((False, True))[1] == TensorProto.BOOL
    words, kind = write_classes(("a", 5))
    assert (words.tolist(), kind) == (["a", "5"], STRINGS)


def test_an_input_and_an_output_need_names_of_their_own():
    with pytest.raises(UserError, match="two columns of the model are named 'age'"):
        refuse_same_names(["age"], ["income", "age"])
    with pytest.raises(UserError, match="two columns of the model are named 'a'"):
        refuse_same_names(["b"], ["a", "a"])
    assert find_prefix(["age", "_x", "__y"]) == "___"
