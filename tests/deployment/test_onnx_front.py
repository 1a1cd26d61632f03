"""The graph reads texts as the house's own encoders do, and refuses the same ones."""

import numpy as np
import pandas as pd
import pytest

from src.data.tables.columns import Categorical, Numeric
from src.data.tables.file_format import MISSING_WORDS
from src.data.tables.numbers import BadValue, NumberFormat

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, checker, helper  # noqa: E402

from src.deployment.graph import ML, ML_VERSION, GraphWriter  # noqa: E402
from src.deployment.onnx_core import OPSET  # noqa: E402
from src.deployment.onnx_front import read_table, read_tensor  # noqa: E402
from src.deployment.row_inputs import RowInput, describe_column  # noqa: E402
from tests.deployment.test_rows import FORMATS, numeric  # noqa: E402


def open_graph(writer, results):
    """A session of a graph whose outputs are these results."""
    for name, (value, kind, sizes) in results.items():
        writer.write(value, name, kind, sizes)
    graph = helper.make_graph(writer.nodes, "g", writer.inputs, writer.outputs, writer.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    checker.check_model(model)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def open_table(*columns):
    writer = GraphWriter("_")
    dense, codes = read_table(writer, [describe_column(c, MISSING_WORDS) for c in columns])
    kinds = {
        "dense": (dense, TensorProto.FLOAT, ["rows", "f"]),
        "codes": (codes, TensorProto.INT64, ["rows", "c"]),
    }
    return open_graph(writer, kinds)


TEXTS = ["1234.5", "1,234.5", "1.234,5 €", "-1.234.567,25€", "(12,5)", "1 234", "USD -3", "3 %"]
TEXTS += ["-1'000.5%", "true", "False", "1", "+7", "1e3", ".5", "NA", "n/a", "", "--", "12abc"]
TEXTS += ["0x10", "inf", "1e300", "1 2", "5-", "1.2.3", "?"]


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_numbers_are_those_of_the_format_or_none(form):
    column = numeric(form)
    session = open_table(column)
    read = 0
    for text in TEXTS:
        series = pd.Series([text], dtype="str")
        try:
            expected = column.encode(series.mask(series.isin(MISSING_WORDS)))
        except BadValue:
            with pytest.raises(Exception, match="Cast"):
                session.run(None, {"x": np.array([text], object)})
            continue
        dense, codes = session.run(None, {"x": np.array([text], object)})
        np.testing.assert_array_equal(dense, expected)
        assert codes.shape == (1, 0)
        read += 1
    assert read > 6


def test_columns_keep_their_order_whatever_they_are_written_like():
    columns = [
        numeric(NumberFormat(","), "a"),
        Categorical("b", ("x", "y", None)),
        Numeric("c", "c", NumberFormat(), 1.0, 2.0, False),
        numeric(NumberFormat(","), "d", indicator=False),
        Categorical("e", ("1", "2")),
    ]
    frame = pd.DataFrame(
        {
            "a": ["1,5", None, "3"],
            "b": ["y", None, "new"],
            "c": ["5", "6.5", "-1"],
            "d": ["0", "1", "2,25"],
            "e": ["2.0", "1", None],
        },
        dtype="str",
    )
    session = open_table(*columns)
    feeds = {name: frame[name].fillna("").to_numpy(object) for name in frame}
    dense, codes = session.run(None, feeds)
    numbers = [c.encode(frame[c.source]) for c in columns if isinstance(c, Numeric)]
    np.testing.assert_array_equal(dense, np.concatenate(numbers, 1))
    words = [c.encode(frame[c.source]) for c in columns if isinstance(c, Categorical)]
    np.testing.assert_array_equal(codes, np.stack(words, 1))


def test_pixels_are_standardised():
    form = {"dtype": "uint8", "shape": [1, 2, 2], "pixels": [[0.5], [0.25]], "range": [0, 255]}
    writer = GraphWriter("_")
    value = read_tensor(writer, RowInput("photo", "photo", "tensor", form, "inputs"))
    session = open_graph(writer, {"y": (value, TensorProto.FLOAT, ["rows", 1, 2, 2])})
    pixels = np.array([[[[0, 255], [51, 102]]]], np.uint8)
    (found,) = session.run(None, {"photo": pixels})
    np.testing.assert_allclose(found, (pixels / 255 - 0.5) / 0.25, rtol=1e-6)
