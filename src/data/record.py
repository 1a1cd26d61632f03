"""What a run keeps of its data, so that no later command takes other rows for them.

A record holds for each file its place, its size and a hash of its content; for each row the side of
the split that it is on, and a short hash of its inputs. A file is the run's if its content is.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import numpy as np

from src.data.columns import Categorical, Numeric
from src.data.kinds import task_from_plain
from src.data.labels import Labels
from src.files.typed import Count, Damaged, Such, mismatch, read_json

if TYPE_CHECKING:
    from torch import Tensor

LETTERS = {"train": "t", "val": "v", "test": "e"}
BYTES = 6  # of a row's hash: two unlike rows of a million share theirs once in 280 times


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Returns the place, size and content hash of a file."""
    place = Path(path)
    with place.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {
        "path": str(place.resolve()),
        "bytes": place.stat().st_size,
        "sha256": digest.hexdigest(),
    }


def is_same(path: str | Path, record: Mapping[str, Any]) -> bool:
    """Whether a file is there and has the content of a record."""
    place = Path(path)
    if not place.is_file() or place.stat().st_size != record["bytes"]:
        return False
    return bool(fingerprint(place)["sha256"] == record["sha256"])


def letters(rows: Mapping[str, np.ndarray]) -> str:
    """Writes down which side each row is on, a letter a row: t trains, v validates, e tests."""
    side = np.full(sum(map(len, rows.values())), "?")
    for name, numbers in rows.items():
        side[numbers] = LETTERS[name]
    return "".join(side)


def rows_of(text: str) -> dict[str, np.ndarray]:
    """Returns the rows of each side that :func:`letters` wrote down."""
    side = np.array(list(text))
    return {name: np.flatnonzero(side == letter) for name, letter in LETTERS.items()}


def row_hashes(inputs: Mapping[str, Tensor]) -> np.ndarray:
    """Returns a hash of the inputs of each row as a network reads them: (N,) uint64."""
    import pandas as pd

    arrays = [values.numpy() for values in inputs.values()]
    columns = [column for array in arrays for column in array.T]
    if not columns:
        return np.zeros(len(arrays[0]), dtype=np.uint64)
    frame = pd.DataFrame(dict(enumerate(columns)))
    return pd.util.hash_pandas_object(frame, index=False).to_numpy() >> np.uint64(8 * (8 - BYTES))


def packed(hashes: np.ndarray) -> str:
    """Writes hashes down as text."""
    raw = hashes.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - BYTES :]
    return base64.b64encode(raw.tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """Returns the hashes that :func:`packed` wrote down."""
    raw = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8).reshape(-1, BYTES)
    whole = np.zeros((len(raw), 8), dtype=np.uint8)
    whole[:, 8 - BYTES :] = raw
    return whole.view(">u8").ravel().astype(np.uint64)


class FileRecord(TypedDict):
    """What identifies a file in a schema."""

    given: str
    path: str
    bytes: Count
    sha256: str
    rows: Count
    columns: list[str]


class Description(TypedDict):
    """A task: its kind, and settings, which the kind looks at."""

    kind: str


class TaskRecord(TypedDict):
    """How the labels of a task are read, and the task."""

    labels: Labels
    task: Description


class Schema(TypedDict):
    """What a run keeps of a table."""

    inputs: Annotated[list[dict[str, Any]], Such("at least one", bool)]
    tasks: Annotated[dict[str, TaskRecord], Such("with at least one task", bool)]
    dropped: dict[str, str]
    files: Annotated[
        dict[str, FileRecord],
        Such("with train", lambda files: "train" in files and files.keys() <= LETTERS.keys()),
    ]
    sides: Annotated[
        str, Such("a t, v or e for each row", lambda sides: set(sides) <= set(LETTERS.values()))
    ]
    hashes: str
    seal: str


def sealed(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema with a hash of its own content, which tells when a value has been changed into another that could be."""
    return {**schema, "seal": seal(schema)}


def seal(schema: Mapping[str, Any]) -> str:
    """Returns the hash of all of a schema but the hash."""
    content = {key: value for key, value in schema.items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_schema(path: str) -> dict[str, Any]:
    """Reads the schema.json of a run on a table.

    Raises:
        Damaged: It is not what a run has written, and where that can be told the message says where
            and what belongs there.
    """
    saved: dict[str, Any] = read_json(path, Schema)
    if (wrong := contradiction(saved)) is not None:
        raise Damaged(path, wrong)
    if saved["seal"] != seal(saved):
        raise Damaged(
            path, "a value is not what the run has written; restore the file, or train anew"
        )
    return saved


def contradiction(saved: Mapping[str, Any]) -> str | None:
    """Says what in a schema, whose types are right, cannot be together; None where all can."""
    train = saved["files"]["train"]
    kinds = {"numeric": Numeric, "categorical": Categorical}
    for number, column in enumerate(saved["inputs"]):
        kind = kinds.get(str(column.get("kind")))
        if kind is None:
            return f"inputs[{number}].kind is {column.get('kind')!r}, where {' or '.join(map(repr, kinds))} belongs"
        if wrong := mismatch(
            {key: value for key, value in column.items() if key != "kind"},
            kind,
            f"inputs[{number}]",
        ):
            return wrong
        source = column["source"] if kind is Numeric else column["column"]
        if source not in train["columns"]:
            return f"inputs[{number}] reads '{source}', which is none of files.train.columns"
    for name, record in saved["tasks"].items():
        try:
            task_from_plain(record["task"])
        except (ValueError, KeyError) as error:
            return f"tasks.{name}.task {error}"
        labels = record["labels"]
        for column in labels["columns"]:
            if column not in train["columns"]:
                return f"tasks.{name}.labels reads '{column}', which is none of files.train.columns"
    if len(saved["sides"]) != train["rows"]:
        return f"sides has {len(saved['sides'])} letters, where files.train.rows is {train['rows']}"
    try:
        count = len(unpacked(saved["hashes"]))
    except ValueError:
        return "hashes is no base64 text of whole hashes"
    return (
        None
        if count == train["rows"]
        else f"hashes has {count} rows, where files.train.rows is {train['rows']}"
    )


def difference(before: np.ndarray, now: np.ndarray) -> str:
    """Says how the rows of a file have changed, from the hashes of their inputs."""
    if len(before) == len(now) and (before == now).all():
        return "its inputs are the same, its labels or other columns are not"
    if len(before) == len(now) and (np.sort(before) == np.sort(now)).all():
        return "its rows stand in another order"
    old, counts = np.unique(before, return_counts=True)
    new, others = np.unique(now, return_counts=True)
    place = np.searchsorted(old, new).clip(max=len(old) - 1)
    shared = np.minimum(np.where(old[place] == new, counts[place], 0), others).sum()
    return (
        f"it has {len(now)} rows where it had {len(before)}, of which {len(now) - shared} are new or changed and "
        f"{len(before) - shared} are gone"
    )
