"""Runs model.pt2, a program of torch.export, on checked rows that numpy has encoded.

Open a program of your own alone: unlike model.onnx it is read by torch, which trusts its file.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from src.deployment.rows import check_schema, encode_rows, encode_table, stack

FOLDER = Path(__file__).parent


def predict(rows: list[Any], folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Returns {output: value} for each row; raises BadRows."""
    import torch

    schema, program = load(folder)
    columns = encode_rows(schema, rows)
    ready = encode_table(schema, columns)
    for entry in schema["inputs"]:
        if entry["kind"] == "tensor":
            ready[entry["key"]] = prepare(entry, columns[entry["name"]])
    keys = schema["network"]["inputs"]
    tensors = [ready.get(key, ready.get(key.rpartition("/")[2])) for key in keys]
    with torch.no_grad():
        found = program(*map(torch.from_numpy, tensors))
    outputs = schema["outputs"]
    answers = [
        write_values(entry, values.numpy())
        for entry, values in zip(outputs, found[: len(outputs)], strict=True)
    ]
    names = [entry["name"] for entry in outputs]
    return [dict(zip(names, values, strict=True)) for values in zip(*answers, strict=True)]


@cache
def load(folder: Path) -> tuple[dict[str, Any], Any]:
    """Opens schema.json and model.pt2 once."""
    import torch

    schema = check_schema(json.loads((folder / "schema.json").read_text("utf-8")))
    return schema, torch.export.load(folder / "model.pt2").module()


def prepare(entry: dict[str, Any], values: list[np.ndarray]) -> np.ndarray:
    """Returns the tensors of all rows as one; the pixels of images are standardised."""
    found = stack(values, entry["dtype"])
    if not entry["pixels"]:
        return found
    mean, std = (np.array(part, np.float32)[:, None, None] for part in entry["pixels"])
    standard: np.ndarray = (found.astype(np.float32) / np.float32(255) - mean) / std
    return standard


def write_values(entry: dict[str, Any], values: np.ndarray) -> list[Any]:
    """Returns the values of an output for people: classes by name, sets as joined words."""
    classes = entry.get("classes")
    if classes is None:
        return list(values.tolist())
    if entry["is_set"]:
        return [
            "|".join(w for w, is_in in zip(classes, row, strict=True) if is_in) for row in values
        ]
    return list(np.array(classes, object)[values].tolist())
