"""Runs model.onnx on checked rows, without torch."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from src.deployment.rows import check_schema, encode_rows, list_feeds, stack

FOLDER = Path(__file__).parent


def predict(rows: list[Any], folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Returns {output: value} for each row; raises BadRows."""
    schema, session = load(folder)
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, make_feeds(schema, encode_rows(schema, rows)))
    columns = [values.tolist() for values in found]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


@cache
def load(folder: Path) -> tuple[dict[str, Any], Any]:
    """Opens schema.json and model.onnx once; neither runs code."""
    import onnxruntime

    schema = check_schema(json.loads((folder / "schema.json").read_text("utf-8")))
    options = onnxruntime.SessionOptions()
    # one row is done before a second thread wakes up
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    if {entry.name for entry in session.get_inputs()} != set(list_feeds(schema)):
        raise ValueError("schema.json and model.onnx are not of one export")
    return schema, session


def make_feeds(schema: dict[str, Any], columns: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    """Returns the arrays that the graph reads: texts, and the tensors of all rows as one."""
    dtypes = {each["name"]: each["dtype"] for each in schema["inputs"] if each["kind"] == "tensor"}
    feeds = {}
    for name, values in columns.items():
        is_text = name not in dtypes
        feeds[name] = np.array(values, object) if is_text else stack(values, dtypes[name])
    return feeds
